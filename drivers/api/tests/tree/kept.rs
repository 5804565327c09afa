//! What a copy has of its original.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use dunnage_driver_api::ErrorKind;
use dunnage_testkit::needs_root;
use rustix::fs::IFlags;

use crate::support::{Disk, Place, assert_same, data_of, fill, picture, run, set, some_acl};

#[test]
fn everything_is_kept_on_every_file_system() {
    if !needs_root("everything_is_kept_on_every_file_system") {
        return;
    }
    for disk in Disk::all() {
        let place = disk.place();
        fill(&place.source, disk.kind);
        let before = picture(&place.source);
        assert!(before.len() > 20);
        let copied = place.copy().unwrap();
        assert_same(&picture(&place.source), &before, &format!("the original on {}", disk.kind));
        assert_same(&picture(&place.target), &before, &format!("the copy on {}", disk.kind));
        assert!(copied.files > 15 && copied.bytes > 17 << 20, "{}: {copied:?}", disk.kind);
    }
}

#[test]
fn data_is_shared_where_the_file_system_can_share_it() {
    if !needs_root("data_is_shared_where_the_file_system_can_share_it") {
        return;
    }
    for kind in ["xfs", "btrfs"] {
        let disk = Disk::new(kind, 400 << 20);
        let place = disk.place();
        // Twice it would not fit.
        fs::write(place.source.join("large"), vec![1; 200 << 20]).unwrap();
        let copied = place.copy().unwrap();
        assert_eq!((copied.files, copied.bytes), (1, 200 << 20));
        assert!(fs::read(place.target.join("large")).unwrap().iter().all(|byte| *byte == 1));
        fs::write(place.source.join("large"), "other").unwrap();
        assert_eq!(fs::metadata(place.target.join("large")).unwrap().len(), 200 << 20);
    }
}

#[test]
fn what_is_not_data_takes_no_room() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    let vast = File::create(place.source.join("vast")).unwrap();
    vast.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&vast, b"x", 1 << 39).unwrap();
    let copied = place.copy().unwrap();
    let copy = File::open(place.target.join("vast")).unwrap();
    assert_eq!(data_of(&copy, 1 << 40), data_of(&vast, 1 << 40));
    assert!(copy.metadata().unwrap().len() == 1 << 40 && copied.bytes <= 1 << 20, "{copied:?}");
}

#[test]
fn no_copy_is_immutable_and_all_of_it_can_be_removed() {
    if !needs_root("no_copy_is_immutable_and_all_of_it_can_be_removed") {
        return;
    }
    let disk = Disk::new("ext4", 64 << 20);
    let place = disk.place();
    fs::create_dir(place.source.join("folder")).unwrap();
    for name in ["file", "folder/log"] {
        fs::write(place.source.join(name), "words").unwrap();
    }
    run("chattr", &["+i", place.source.join("file").to_str().unwrap()]);
    run("chattr", &["+a", place.source.join("folder/log").to_str().unwrap()]);
    run("chattr", &["+i", place.source.join("folder").to_str().unwrap()]);
    place.copy().unwrap();
    assert_eq!(fs::read_to_string(place.target.join("folder/log")).unwrap(), "words");
    for name in ["file", "folder", "folder/log"] {
        let flags = rustix::fs::ioctl_getflags(File::open(place.target.join(name)).unwrap()).unwrap();
        assert!(!flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND), "{name}");
    }
    fs::remove_dir_all(&place.target).unwrap();
    run("chattr", &["-R", "-i", "-a", place.source.to_str().unwrap()]);
}

#[test]
fn a_copy_gets_no_acl_group_or_mode_from_where_it_lies() {
    if !needs_root("a_copy_gets_no_acl_group_or_mode_from_where_it_lies") {
        return;
    }
    let disk = Disk::new("ext4", 64 << 20);
    let place = disk.place();
    fs::create_dir_all(place.source.join("a/b")).unwrap();
    fs::write(place.source.join("a/file"), "").unwrap();
    set(&place.target, "system.posix_acl_default", &some_acl());
    std::os::unix::fs::chown(&place.target, Some(1), Some(77)).unwrap();
    fs::set_permissions(&place.target, fs::Permissions::from_mode(0o2777)).unwrap();
    place.copy().unwrap();
    assert_same(&picture(&place.target), &picture(&place.source), "a copy");
}

#[test]
fn links_to_files_elsewhere_are_copied_as_files() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    fs::write(temp.path().join("outside"), "words").unwrap();
    fs::hard_link(temp.path().join("outside"), place.source.join("inside")).unwrap();
    place.copy().unwrap();
    fs::remove_dir_all(&place.beside).unwrap();
    let copy = fs::metadata(place.target.join("inside")).unwrap();
    assert_eq!(copy.nlink(), 1);
    assert_ne!(copy.ino(), fs::metadata(temp.path().join("outside")).unwrap().ino());
}

/// 65,000 on ext4: the name beside the copy is one more.
#[test]
fn a_file_with_as_many_names_as_can_be_keeps_them_all() {
    if !needs_root("a_file_with_as_many_names_as_can_be_keeps_them_all") {
        return;
    }
    let disk = Disk::new("ext4", 256 << 20);
    let place = disk.place();
    fs::write(place.source.join("0"), "words").unwrap();
    let mut names = 1;
    while fs::hard_link(place.source.join("0"), place.source.join(names.to_string())).is_ok() {
        names += 1;
    }
    assert_eq!(names, 65_000);
    place.copy().unwrap();
    assert_eq!(fs::metadata(place.target.join("0")).unwrap().nlink(), names);
    place.copy().unwrap();
    assert_eq!(fs::metadata(place.target.join("0")).unwrap().nlink(), names, "also when it is gone on with");
}

#[test]
fn a_full_file_system_is_told_with_the_path() {
    if !needs_root("a_full_file_system_is_told_with_the_path") {
        return;
    }
    for kind in ["ext4", "tmpfs"] {
        let disk = Disk::new(kind, 64 << 20);
        let place = disk.place();
        fs::create_dir(place.source.join("folder")).unwrap();
        fs::write(place.source.join("folder/large"), vec![1; 34 << 20]).unwrap();
        let error = place.copy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().ends_with("source/folder/large"), "{error}");
        fs::rename(place.source.join("folder/large"), place.source.join("folder/kept")).unwrap();
        fs::write(place.source.join("folder/kept"), vec![1; 1 << 20]).unwrap();
        fs::remove_file(place.target.join("folder/large")).unwrap();
        place.copy().unwrap();
        assert_same(&picture(&place.target), &picture(&place.source), "there is room, and it goes on");
    }
}

#[test]
fn what_is_mounted_in_a_tree_is_told_and_never_copied() {
    if !needs_root("what_is_mounted_in_a_tree_is_told_and_never_copied") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    fs::create_dir(place.source.join("mounted")).unwrap();
    let _mounted = Disk::mounted_at(&place.source.join("mounted"));
    let error = place.copy().unwrap_err();
    assert!(error.report().contains("source/mounted: something is mounted there"), "{}", error.report());
}
