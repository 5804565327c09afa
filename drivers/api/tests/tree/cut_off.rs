//! Copies that are cut off and gone on with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dunnage_driver_api::Error;
use dunnage_testkit::needs_root;
use proptest::prelude::*;

use crate::support::{Disk, Place, all_paths, assert_same, fill, inode, picture};

/// The files that are whole, and which they are.
fn whole(place: &Place) -> BTreeMap<PathBuf, (u64, u64)> {
    let (originals, copies) = (picture(&place.source), picture(&place.target));
    let same = |(name, copy): (&PathBuf, _)| {
        let path = place.target.join(name);
        // Which name was first may differ in half a copy.
        let is_whole = originals.get(name).is_some_and(|original| original.same_but_names(copy)) && !path.is_dir();
        is_whole.then(|| (name.clone(), inode(&path)))
    };
    copies.iter().filter_map(same).collect()
}

fn inodes(place: &Place) -> BTreeMap<PathBuf, (u64, u64)> {
    let name = |path: &Path| path.strip_prefix(&place.target).unwrap().to_owned();
    all_paths(&place.target).into_iter().map(|path| (name(&path), inode(&path))).collect()
}

#[test]
fn a_copy_that_is_stopped_before_any_step_goes_on_and_copies_nothing_twice() {
    if !needs_root("a_copy_that_is_stopped_before_any_step_goes_on_and_copies_nothing_twice") {
        return;
    }
    for disk in ["ext4", "xfs"].map(|kind| Disk::new(kind, 1 << 30)) {
        let place = disk.place();
        fill(&place.source, disk.kind);
        let original = picture(&place.source);
        for stop in 1.. {
            place.clear();
            let mut steps = 0;
            let cut = place.copy_telling(&mut |_| {
                steps += 1;
                if steps == stop { Err(Error::internal("enough")) } else { Ok(()) }
            });
            let before = whole(&place);
            place.copy().unwrap();
            assert_same(&picture(&place.target), &original, &format!("{}, stopped before step {stop}", disk.kind));
            let after = inodes(&place);
            for (name, inode) in before {
                assert_eq!(after[&name], inode, "{}: {} was copied twice", disk.kind, name.display());
            }
            match cut {
                Ok(_) => break,
                Err(error) => assert_eq!(error.to_string(), "enough"),
            }
        }
    }
}

const CHILD: &str = "DUNNAGE_TEST_COPIES_A_TREE_IN";

/// The child that is killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let path = PathBuf::from(path);
    let [source, target, beside] = ["source", "target", "beside"].map(|name| path.join(name));
    Place { source, target, beside }.copy().unwrap();
}

fn start_child(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cut_off::child", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_copy_that_is_killed_goes_on_and_copies_nothing_twice() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    for folder in 0..30 {
        let folder = place.source.join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        for file in 0..60_usize {
            fs::write(folder.join(file.to_string()), vec![file as u8; file * 700]).unwrap();
        }
        fs::hard_link(folder.join("1"), folder.join("linked")).unwrap();
        fs::hard_link(folder.join("1"), place.source.join(format!("linked-{}", file_name(&folder)))).unwrap();
    }
    let original = picture(&place.source);
    let (mut kills, mut ended) = (0, false);
    while !ended {
        let copied = files_in(&place.target);
        let mut child = start_child(temp.path());
        // It gets on by some files, more each time, so that it ends.
        let late = Instant::now() + Duration::from_secs(60);
        while files_in(&place.target) < copied + 40 * (kills + 1) {
            assert!(Instant::now() < late, "the copy stands still");
            if let Some(status) = child.try_wait().unwrap() {
                ended = status.success();
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let before = whole(&place);
        if kills % 3 == 0 || ended {
            place
                .copy_telling(&mut |copied| if copied.files > 100 { Err(Error::internal("enough")) } else { Ok(()) })
                .ok();
        }
        let after = inodes(&place);
        before.iter().for_each(|(name, inode)| assert_eq!(after[name], *inode, "{} was copied twice", name.display()));
    }
    assert!(kills > 3, "it was killed {kills} times");
    place.copy().unwrap();
    assert_same(&picture(&place.target), &original, "the copy");
}

/// How many files there are in the folders of a folder, while they are made.
fn files_in(path: &Path) -> usize {
    let folders = fs::read_dir(path).unwrap().filter_map(|entry| fs::read_dir(entry.ok()?.path()).ok());
    folders.map(Iterator::count).sum()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn what_was_changed_since_is_copied_again() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    let path = |name: &str| place.source.join(name);
    for name in ["text", "longer", "mode", "kept", "gone"] {
        fs::write(path(name), "words").unwrap();
    }
    symlink("one", path("link")).unwrap();
    place.copy().unwrap();
    let kept = inode(&place.target.join("kept"));
    fs::write(path("text"), "drows").unwrap();
    fs::write(path("longer"), "words and words").unwrap();
    fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::remove_file(path("link")).unwrap();
    symlink("two", path("link")).unwrap();
    place.copy().unwrap();
    assert_same(&picture(&place.target), &picture(&place.source), "a copy");
    assert_eq!(inode(&place.target.join("kept")), kept);
}

/// One entry of a tree, at a random place.
#[derive(Debug, Clone)]
enum Entry {
    Folder(u32),
    File(usize, u32),
    Link(Vec<u8>),
    Again(prop::sample::Index),
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => (0_u32..0o10000).prop_map(Entry::Folder),
        4 => (0_usize..20_000, 0_u32..0o10000).prop_map(|(length, mode)| Entry::File(length, mode)),
        1 => prop::collection::vec(1_u8..=255, 1..40).prop_map(Entry::Link),
        2 => any::<prop::sample::Index>().prop_map(Entry::Again),
    ]
}

fn name() -> impl Strategy<Value = OsString> {
    let byte = prop::num::u8::ANY.prop_filter("in names", |byte| !matches!(byte, 0 | b'/'));
    prop::collection::vec(byte, 1..30)
        .prop_filter("a name", |name| name != b"." && name != b"..")
        .prop_map(OsString::from_vec)
}

/// Makes it; modes last, so that all can be made.
fn make(top: &Path, entries: &[(prop::sample::Index, OsString, Entry)]) {
    let (mut folders, mut files, mut modes) = (vec![top.to_owned()], Vec::new(), Vec::new());
    for (parent, name, entry) in entries {
        let path = parent.get(&folders).join(name);
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match entry {
            Entry::Folder(mode) => {
                fs::create_dir(&path).unwrap();
                folders.push(path.clone());
                modes.push((path, *mode));
            }
            Entry::File(length, mode) => {
                fs::write(&path, vec![(length % 251) as u8; *length]).unwrap();
                files.push(path.clone());
                modes.push((path, *mode));
            }
            Entry::Link(to) => symlink(OsString::from_vec(to.clone()), &path).unwrap(),
            Entry::Again(index) if !files.is_empty() => fs::hard_link(index.get(&files), &path).unwrap(),
            Entry::Again(_) => {}
        }
    }
    for (path, mode) in modes {
        let own = fs::metadata(&path).unwrap().uid() == 0;
        // Somebody else than root can copy only what may be read.
        let mode = if own { mode } else { mode | 0o700 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_is_copied_however_often_it_is_cut_off(
        entries in prop::collection::vec((any::<prop::sample::Index>(), name(), entry()), 0..60),
        stops in prop::collection::vec(1_usize..80, 0..4),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::at(temp.path());
        make(&place.source, &entries);
        for stop in stops {
            let mut steps = 0;
            let _ = place.copy_telling(&mut |_| {
                steps += 1;
                if steps >= stop { Err(Error::internal("enough")) } else { Ok(()) }
            });
        }
        place.copy().unwrap();
        assert_same(&picture(&place.target), &picture(&place.source), "a copy");
        let before = inodes(&place);
        place.copy().unwrap();
        prop_assert_eq!(inodes(&place), before);
        assert_same(&picture(&place.target), &picture(&place.source), "a copy");
    }
}
