use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use rustix::fs::{Mode, mkdirat};
use tempfile::TempDir;

use super::*;
use crate::root::Root;

fn root() -> (TempDir, Root) {
    let temp = tempfile::tempdir().unwrap();
    Root::init(temp.path(), "dir").unwrap();
    let root = Root::open(temp.path(), "dir").unwrap();
    (temp, root)
}

/// How many files a large tree has: a number in the environment, for a long run, or as many as take a moment.
fn many() -> usize {
    std::env::var("DUNNAGE_TRASH_FILES").ok().map_or(4000, |count| count.parse().expect("it is no number"))
}

/// Discards `name`, and says how long it took until it was out of reach, and until it was gone.
fn discard_and_time(root: &Root, name: &str, what: &str) {
    let began = Instant::now();
    root.trash().discard(root.folder(), name).unwrap();
    let discarded = began.elapsed();
    wait_until_empty(root);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim().to_owned();
    eprintln!("{what}: out of reach after {discarded:.1?}, gone after {:.1?}, peak memory {peak}", began.elapsed());
}

fn wait_until_empty(root: &Root) {
    let late = Instant::now() + Duration::from_secs(120 + many() as u64 / 1000);
    while !root.trash().is_empty().unwrap() {
        assert!(Instant::now() < late, "the trash was not emptied");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_tree_of_every_kind_of_entry_goes_away_and_nothing_else_does() {
    let (temp, root) = root();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let tree = temp.path().join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/file"), "x").unwrap();
    fs::write(tree.join("a/b/\u{fc} \n"), "x").unwrap();
    symlink(outside.path(), tree.join("a/link")).unwrap();
    symlink("nowhere", tree.join("a/b/c/broken")).unwrap();
    fs::write(temp.path().join("single"), "x").unwrap();
    for name in ["tree", "single", "none"] {
        root.trash().discard(root.folder(), name).unwrap();
        assert!(!temp.path().join(name).exists());
    }
    wait_until_empty(&root);
    assert!(outside.path().join("kept").exists());
}

#[test]
fn names_that_lead_out_are_refused() {
    let (temp, root) = root();
    fs::create_dir(temp.path().join("inside")).unwrap();
    let inside = root.folder().folder("inside").unwrap();
    assert!(root.trash().discard(&inside, "../inside").is_err());
    assert!(root.trash().discard(&inside, "..").is_err());
    assert!(temp.path().join("inside").exists());
}

#[test]
fn a_tree_deeper_than_any_path_may_be_goes_away() {
    let (temp, root) = root();
    let mut folder = Folder::at(temp.path()).unwrap();
    let depth = many() / 2;
    for _ in 0..depth {
        mkdirat(&folder, "d", Mode::RWXU).unwrap();
        // By its descriptor: a folder's own path would grow with the depth.
        folder = Folder::at(Path::new(&format!("/proc/self/fd/{}/d", folder.as_fd().as_raw_fd()))).unwrap();
    }
    drop(folder);
    discard_and_time(&root, "d", &format!("a tree {depth} deep"));
}

#[test]
fn a_wide_tree_goes_away() {
    let (temp, root) = root();
    // Half of the files in one folder, half in many.
    let half = many() / 2;
    for file in 0..half {
        let folder = temp.path().join(format!("tree/{}", file / 200));
        if file % 200 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(file.to_string()), "").unwrap();
    }
    fs::create_dir(temp.path().join("tree/all")).unwrap();
    (0..half).for_each(|file| fs::write(temp.path().join(format!("tree/all/{file}")), "").unwrap());
    discard_and_time(&root, "tree", &format!("a tree of {} files", 2 * half));
}

#[test]
fn what_an_ended_process_left_is_taken_up_by_the_next() {
    let (temp, root) = root();
    drop(root);
    fs::create_dir_all(temp.path().join(".dunnage/trash/old.1/a/b")).unwrap();
    wait_until_empty(&Root::open(temp.path(), "dir").unwrap());
}

#[test]
fn a_root_that_is_closed_in_the_middle_goes_on_at_the_next_opening() {
    let (temp, root) = root();
    for folder in 0..20 {
        let folder = temp.path().join(format!("tree/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        (0..200).for_each(|file| fs::write(folder.join(file.to_string()), "").unwrap());
    }
    root.trash().discard(root.folder(), "tree").unwrap();
    let began = Instant::now();
    drop(root);
    assert!(began.elapsed() < FAREWELL, "the thread ended by itself");
    wait_until_empty(&Root::open(temp.path(), "dir").unwrap());
}

/// A tree whose folders allow nothing, taken apart by an ordinary user: in a child, since an identity is a process's.
#[test]
fn folders_without_any_right_go_away_also_for_an_ordinary_user() {
    const CHILD: &str = "DUNNAGE_TEST_ORDINARY_USER";
    if let Ok(path) = std::env::var(CHILD) {
        let (user, group) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        closed_folders_go_away(Path::new(&path));
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        return closed_folders_go_away(temp.path());
    }
    std::os::unix::fs::chown(temp.path(), Some(65534), Some(65534)).unwrap();
    let name = "root::trash::tests::folders_without_any_right_go_away_also_for_an_ordinary_user";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, temp.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

fn closed_folders_go_away(path: &Path) {
    Root::init(path, "dir").unwrap();
    let root = Root::open(path, "dir").unwrap();
    let tree = path.join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::write(tree.join("a/b/file"), "x").unwrap();
    for (name, mode) in [("a/b/c", 0), ("a/b", 0), ("a", 0o555), ("empty", 0), ("", 0o700)] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    assert!(fs::read_dir(tree.join("a/b")).is_err(), "the test runs with no right to read it");
    root.trash().discard(root.folder(), "tree").unwrap();
    wait_until_empty(&root);
}
