//! What a process leaves that is killed between two steps, and what the next one makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dunnage_driver_api::ErrorKind;
use dunnage_testkit::needs_root;

use crate::support::{MIB, Root, btrfs, fill, names};

#[test]
fn what_was_made_and_has_no_record_goes_at_the_next_start_or_the_next_attempt() {
    if !needs_root("what_was_made_and_has_no_record_goes_at_the_next_start_or_the_next_attempt") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    for name in [".new.b", ".new.c", ".old.d"] {
        // As a clone that was cut off, which has data.
        btrfs(&["subvolume", "snapshot", root.data("a").to_str().unwrap()], &root.data(name));
        fs::write(root.data(name).join("file"), "data").unwrap();
    }
    root.create("b", MIB).unwrap();
    assert_eq!(names(&root.data("b")), [""; 0]);
    root.restart();
    assert_eq!(names(&root.path().join("volumes")), ["a", "b"]);

    btrfs(&["subvolume", "snapshot", "-r", root.data("a").to_str().unwrap()], &root.snapshot_data(".new.s"));
    let snapshot = root.snapshot("s", &volume).unwrap();
    btrfs(&["subvolume", "snapshot", "-r", root.data("a").to_str().unwrap()], &root.snapshot_data(".new.t"));
    root.restart();
    assert_eq!(names(&root.path().join("snapshots")), ["s"]);
    assert_eq!(root.find_snapshot("s").unwrap(), snapshot);
}

#[test]
fn what_has_its_record_gets_its_name_at_the_next_start() {
    if !needs_root("what_has_its_record_gets_its_name_at_the_next_start") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    fs::write(root.data("a").join("file"), "data").unwrap();
    root.snapshot("s", &volume).unwrap();
    fs::rename(root.data("a"), root.data(".new.a")).unwrap();
    fs::rename(root.snapshot_data("s"), root.snapshot_data(".new.s")).unwrap();
    // Whose record cannot be read stays as it is, and is in nobody's way.
    btrfs(&["subvolume", "snapshot", root.data(".new.a").to_str().unwrap()], &root.data(".new.b"));
    fs::write(root.path().join(".dunnage/volumes/b"), "broken").unwrap();
    root.restart();
    assert!(root.data(".new.b").join("file").exists());
    assert_eq!(fs::read_to_string(root.data("a").join("file")).unwrap(), "data");
    assert!(root.snapshot_data("s").join("file").exists());
    root.source(&volume).unwrap();
}

#[test]
fn a_delete_that_was_cut_off_is_seen_and_finished() {
    if !needs_root("a_delete_that_was_cut_off_is_seen_and_finished") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    btrfs(&["subvolume", "create"], &root.data("a").join("inner"));
    fs::rename(root.data("a"), root.data(".old.a")).unwrap();
    assert!(root.is_half_deleted(&volume));
    root.restart();
    assert!(root.is_half_deleted(&volume) && names(&root.path().join("volumes")).is_empty());
    assert_eq!(root.source(&volume).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    root.delete(&volume).unwrap();
    assert!(root.find("a").is_none());
}

#[test]
fn data_without_a_record_is_neither_used_nor_removed() {
    if !needs_root("data_without_a_record_is_neither_used_nor_removed") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("b", 16 * MIB).unwrap();
    btrfs(&["subvolume", "create"], &root.data("a"));
    fs::write(root.data("a").join("thesis"), "words").unwrap();
    btrfs(&["subvolume", "create"], &root.snapshot_data("s"));
    fs::create_dir(root.data(".new.folder")).unwrap();
    root.restart();
    for error in [root.create("a", MIB).unwrap_err(), root.snapshot("s", &volume).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("restore the record, or move it away"), "{error}");
    }
    assert_eq!(fs::read_to_string(root.data("a").join("thesis")).unwrap(), "words");
    assert!(root.snapshot_data("s").exists() && root.data(".new.folder").exists());
}

#[test]
fn what_was_answered_survives_a_power_cut() {
    if !needs_root("what_was_answered_survives_a_power_cut") {
        return;
    }
    for keys in ["", r#""quota": "full""#] {
        let mut root = Root::new(keys);
        let gone = root.create("gone", 16 * MIB).unwrap();
        let gone_snapshot = root.snapshot("gone", &gone).unwrap();
        root.cut_power();
        let volume = root.create("a", 16 * MIB).unwrap();
        root.cut_power();
        fs::write(root.data("a").join("file"), "data").unwrap();
        let snapshot = root.snapshot("s", &volume).unwrap();
        root.cut_power();
        assert_eq!(root.find_snapshot("s").unwrap(), snapshot);
        let cloned = root.clone_of("c", &volume, 16 * MIB).unwrap();
        root.cut_power();
        root.modify(&cloned, &[("nodatacow", "true")]).unwrap();
        root.cut_power();
        root.expand(&cloned, 32 * MIB).unwrap();
        root.cut_power();
        root.delete_snapshot(&gone_snapshot).unwrap();
        root.cut_power();
        root.delete(&gone).unwrap();
        root.cut_power();
        assert_eq!(names(&root.path().join("volumes")), ["a", "c"]);
        assert_eq!(names(&root.path().join("snapshots")), ["s"]);
        assert!(root.find("gone").is_none() && root.find_snapshot("gone").is_none());
        let cloned = root.find("c").unwrap();
        assert_eq!(cloned.capacity.get(), 32 * MIB);
        let mode = fs::metadata(root.data("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        for file in [root.data("a"), root.data("c"), root.snapshot_data("s")].map(|data| data.join("file")) {
            assert_eq!(fs::read_to_string(file).unwrap(), "data");
        }
        let flags = rustix::fs::ioctl_getflags(fs::File::open(root.data("c")).unwrap()).unwrap();
        assert!(flags.contains(rustix::fs::IFlags::NOCOW));
        root.source(&cloned).unwrap();
        fill(&root.data("c").join("large"), 24 * MIB).unwrap();
        fill(&root.data("c").join("too-large"), 24 * MIB).unwrap_err();
    }
}
