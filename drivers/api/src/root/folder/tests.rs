use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn folder() -> (TempDir, Folder) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("inside")).unwrap();
    fs::write(temp.path().join("outside"), "kept").unwrap();
    let folder = Folder::at(&temp.path().join("inside")).unwrap();
    (temp, folder)
}

/// Everything that takes a name, on this one.
fn all(folder: &Folder, name: &OsStr) -> Vec<io::Result<()>> {
    vec![
        folder.open(name, OFlags::RDONLY, 0).map(drop),
        folder.open(name, OFlags::WRONLY | OFlags::CREATE, 0o600).map(drop),
        folder.open_path(name).map(drop),
        folder.folder(name).map(drop),
        folder.make_folder(name, 0o700).map(drop),
        folder.folder_or_make(name, 0o700).map(drop),
        folder.rename(name, folder, "new"),
        folder.rename("file", folder, name),
        folder.link(name, folder, "new"),
        folder.link("file", folder, name),
        folder.unlink(name),
        folder.remove_folder(name),
        folder.stat(name).map(drop),
        folder.write(name, b"x"),
        folder.read(name, &mut Vec::new(), 10),
    ]
}

#[test]
fn names_that_lead_out_are_refused_by_every_call() {
    let (temp, folder) = folder();
    let absolute = temp.path().join("outside");
    for name in ["..", ".", "", "../outside", "a/../../outside", "a/b", "/", "a\0b", absolute.to_str().unwrap()] {
        folder.write("file", b"x").unwrap();
        for (call, result) in all(&folder, OsStr::new(name)).into_iter().enumerate() {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "call {call} on {name:?}");
        }
    }
    assert_eq!(fs::read_to_string(absolute).unwrap(), "kept");
}

#[test]
fn a_symlink_in_the_way_is_never_followed() {
    let (temp, folder) = folder();
    symlink(temp.path().join("outside"), temp.path().join("inside/file")).unwrap();
    symlink(temp.path(), temp.path().join("inside/dir")).unwrap();
    symlink("/proc/self/root", temp.path().join("inside/magic")).unwrap();
    for name in ["file", "dir", "magic"] {
        assert!(folder.open(name, OFlags::RDONLY, 0).is_err());
        assert!(folder.open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o600).is_err());
        assert!(folder.folder(name).is_err());
        assert!(folder.open_path(name).is_err());
        assert!(folder.folder_or_make(name, 0o777).is_err());
        assert!(folder.write(name, b"lost").is_err());
        assert!(folder.read(name, &mut Vec::new(), 10).is_err());
        assert_eq!(FileType::from_raw_mode(folder.stat(name).unwrap().st_mode), FileType::Symlink);
        folder.unlink(name).unwrap();
    }
    assert_eq!(fs::read_to_string(temp.path().join("outside")).unwrap(), "kept");
}

#[test]
fn a_mount_in_the_way_is_not_entered() {
    let folder = Folder::at(Path::new("/")).unwrap();
    assert_eq!(folder.folder("proc").unwrap_err().raw_os_error(), Some(libc::EXDEV));
}

#[test]
fn a_folder_gets_exactly_its_mode() {
    let (temp, folder) = folder();
    for mode in [0o777, 0o2770, 0o700, 0o550] {
        folder.make_folder("made", mode).unwrap();
        let made = fs::metadata(temp.path().join("inside/made")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, mode);
        folder.remove_folder("made").unwrap();
    }
}

#[test]
fn it_stays_the_same_folder_when_its_path_becomes_another() {
    let (temp, folder) = folder();
    fs::rename(temp.path().join("inside"), temp.path().join("moved")).unwrap();
    fs::create_dir(temp.path().join("inside")).unwrap();
    folder.write("file", b"x").unwrap();
    assert!(temp.path().join("moved/file").exists());
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let (_temp, folder) = folder();
    let mut buffer = b"old".to_vec();
    folder.write("file", b"0123456789").unwrap();
    folder.read("file", &mut buffer, 10).unwrap();
    assert_eq!(buffer, b"0123456789");
    assert_eq!(folder.read("file", &mut buffer, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(folder.read("none", &mut buffer, 9).unwrap_err().kind(), io::ErrorKind::NotFound);
}

proptest! {
    #[test]
    fn no_name_makes_anything_outside(name in "(\\.\\./|/|\\.|[a-c]|\\PC){0,8}") {
        let (temp, folder) = folder();
        let _ = folder.write(&name, b"x");
        let _ = folder.make_folder(&name, 0o700);
        let mut left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        prop_assert_eq!(left, ["inside", "outside"]);
    }
}

#[test]
fn a_file_system_that_tells_nonsense_has_some_size() {
    assert_eq!((usable(10, 3, 1), usable(10, 3, 5), usable(1, 9, 2)), (8, 10, 0));
}
