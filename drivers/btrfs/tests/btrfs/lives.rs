//! Whole lives of volumes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use dunnage_driver_api::{Driver, ErrorKind};
use dunnage_testkit::needs_root;

use crate::support::{MIB, Root, btrfs, cx, fill, names, opening, until};

#[test]
fn a_volume_is_a_subvolume_that_anybody_may_write_to() {
    if !needs_root("a_volume_is_a_subvolume_that_anybody_may_write_to") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 5 * MIB + 1).unwrap();
    assert_eq!(volume.capacity.get(), 6 * MIB);
    let (_held, path) = root.source(&volume).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.ino(), found.permissions().mode() & 0o7777), (256, 0o777));
    fs::write(path.join("file"), "data").unwrap();
    root.restart();
    assert_eq!(root.find("a").unwrap(), volume);
    assert_eq!(fs::read_to_string(root.data("a").join("file")).unwrap(), "data");
    root.delete(&volume).unwrap();
    assert!(root.find("a").is_none() && names(&root.path().join("volumes")).is_empty());
    root.delete(&volume).unwrap();
}

#[test]
fn a_late_call_does_not_reach_the_successor_of_a_volume() {
    if !needs_root("a_late_call_does_not_reach_the_successor_of_a_volume") {
        return;
    }
    let root = Root::new("");
    let first = root.create("a", MIB).unwrap();
    root.delete(&first).unwrap();
    root.create("a", MIB).unwrap();
    assert_eq!(root.source(&first).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_delete_takes_the_subvolumes_along_that_a_workload_made() {
    if !needs_root("a_delete_takes_the_subvolumes_along_that_a_workload_made") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 64 * MIB).unwrap();
    let top = root.data("a");
    fs::create_dir(top.join("folder")).unwrap();
    btrfs(&["subvolume", "create"], &top.join("folder/inner"));
    btrfs(&["subvolume", "create"], &top.join("folder/inner/innermost"));
    fs::write(top.join("folder/inner/innermost/file"), "data").unwrap();
    btrfs(&["subvolume", "snapshot", "-r", top.join("folder/inner").to_str().unwrap()], &top.join("read-only"));
    for number in 0..200 {
        btrfs(&["subvolume", "create"], &top.join(number.to_string()));
    }
    root.delete(&volume).unwrap();
    assert_eq!(names(&root.path().join("volumes")), [""; 0]);
    assert_eq!(btrfs(&["subvolume", "list"], root.path()), "");
    root.create("a", MIB).unwrap();
}

#[test]
fn a_plain_folder_in_the_place_of_a_volume_is_not_handed_out() {
    if !needs_root("a_plain_folder_in_the_place_of_a_volume_is_not_handed_out") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    btrfs(&["subvolume", "delete"], &root.data("a"));
    fs::create_dir(root.data("a")).unwrap();
    let error = root.source(&volume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("no subvolume"), "{error}");
}

#[test]
fn volumes_are_listed_in_pages() {
    if !needs_root("volumes_are_listed_in_pages") {
        return;
    }
    let root = Root::new("");
    for name in ["c", "a", "b"] {
        root.create(name, MIB).unwrap();
    }
    let volumes = root.0.volumes.as_ref().unwrap();
    let first = volumes.list(&cx(), None, 2).unwrap();
    let rest = volumes.list(&cx(), Some(&first[1].key), 2).unwrap();
    let names: Vec<_> = first.iter().chain(&rest).map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_read_only_file_system_is_not_served_and_its_volumes_are_not_gone() {
    if !needs_root("a_read_only_file_system_is_not_served_and_its_volumes_are_not_gone") {
        return;
    }
    let mut root = Root::new("");
    root.create("a", MIB).unwrap();
    root.close();
    // The threads of the backend hold its lock for writing until they end.
    until("the root is closed", || root.disk.try_mount("remount,ro").then_some(()));
    let Err(error) = root.driver().open(&opening()) else { panic!("it is served") };
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.report().contains("remount it read-write"), "{}", error.report());
    root.disk.mount("remount,rw");
    root.restart();
    root.find("a").unwrap();
}

#[test]
fn the_least_volume_takes_files() {
    if !needs_root("the_least_volume_takes_files") {
        return;
    }
    for keys in ["", r#""quota": "full""#] {
        let root = Root::new(keys);
        root.create("a", 1).unwrap();
        fill(&root.data("a").join("file"), MIB / 4).unwrap();
    }
}
