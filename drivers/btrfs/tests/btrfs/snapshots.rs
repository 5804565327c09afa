//! Snapshots, restores and clones.

use std::fs;
use std::os::unix::fs::FileExt;

use dunnage_driver_api::{ErrorKind, SourceId};
use dunnage_testkit::needs_root;

use crate::support::{MIB, Root, btrfs, cx, fill, names};

#[test]
fn a_snapshot_has_what_was_written_before_it_and_nothing_after() {
    if !needs_root("a_snapshot_has_what_was_written_before_it_and_nothing_after") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 32 * MIB).unwrap();
    let file = fs::File::create(root.data("a").join("file")).unwrap();
    // Nobody syncs it.
    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    let snapshot = root.snapshot("s", &volume).unwrap();
    file.write_all_at(&vec![2; 4 << 20], 0).unwrap();
    assert!(snapshot.ready && snapshot.size == volume.capacity && snapshot.source == root.id(&volume));
    assert_eq!(fs::read(root.snapshot_data("s").join("file")).unwrap(), vec![1; 4 << 20]);
    fs::write(root.snapshot_data("s").join("other"), "").unwrap_err();
    root.restart();
    assert_eq!(root.find_snapshot("s").unwrap(), snapshot);
    assert_eq!(root.0.snapshots.as_ref().unwrap().0.list(&cx(), None, 9).unwrap(), [snapshot]);
}

#[test]
fn a_restore_and_a_clone_are_volumes_of_their_own() {
    if !needs_root("a_restore_and_a_clone_are_volumes_of_their_own") {
        return;
    }
    for keys in ["", r#""quota": "full""#, r#""quota": "none""#] {
        let root = Root::new(keys);
        let volume = root.create("a", 16 * MIB).unwrap();
        fill(&root.data("a").join("file"), MIB).unwrap();
        let was = fs::read(root.data("a").join("file")).unwrap();
        let snapshot = root.snapshot("s", &volume).unwrap();
        fs::write(root.data("a").join("file"), "new").unwrap();
        let restored = root.restore("r", &snapshot, 16 * MIB).unwrap();
        let cloned = root.clone_of("c", &volume, 64 * MIB).unwrap();
        assert!(matches!(&restored.source, Some(SourceId::Snapshot(id)) if id.key == snapshot.key));
        assert_eq!(cloned.source, Some(SourceId::Volume(root.id(&volume))));
        assert_eq!(fs::read(root.data("r").join("file")).unwrap(), was);
        assert_eq!(fs::read_to_string(root.data("c").join("file")).unwrap(), "new");
        fs::write(root.data("r").join("file"), "restored").unwrap();
        fs::write(root.data("c").join("file"), "cloned").unwrap();
        // The larger one has the room.
        fill(&root.data("c").join("large"), 48 * MIB).unwrap();
        assert_eq!(fs::read_to_string(root.data("a").join("file")).unwrap(), "new");
        assert_eq!(fs::read(root.snapshot_data("s").join("file")).unwrap(), was);
        // In an order in which each goes before what was made from it.
        root.delete(&volume).unwrap();
        root.delete_snapshot(&snapshot).unwrap();
        assert_eq!(fs::read_to_string(root.data("r").join("file")).unwrap(), "restored");
        root.delete(&restored).unwrap();
        root.delete(&cloned).unwrap();
        root.delete_snapshot(&snapshot).unwrap();
        assert_eq!(btrfs(&["subvolume", "list"], root.path()), "");
    }
}

#[test]
fn a_copy_that_is_smaller_than_its_source_is_out_of_range() {
    if !needs_root("a_copy_that_is_smaller_than_its_source_is_out_of_range") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    // Asked for less without a limit, it is as large as its source.
    assert_eq!(root.clone_of("c", &volume, MIB).unwrap().capacity, volume.capacity);
    let range = dunnage_driver_api::CapacityRange::new(0, MIB as i64).unwrap();
    assert_eq!(range.at_least(volume.capacity).unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[test]
fn subvolumes_within_a_volume_are_no_part_of_its_snapshot() {
    if !needs_root("subvolumes_within_a_volume_are_no_part_of_its_snapshot") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    btrfs(&["subvolume", "create"], &root.data("a").join("inner"));
    fs::write(root.data("a").join("inner/file"), "data").unwrap();
    let snapshot = root.snapshot("s", &volume).unwrap();
    assert_eq!(names(&root.snapshot_data("s").join("inner")), [""; 0]);
    root.restore("r", &snapshot, 16 * MIB).unwrap();
    root.delete_snapshot(&snapshot).unwrap();
}

#[test]
fn a_snapshot_of_what_is_gone_is_refused_and_leaves_nothing() {
    if !needs_root("a_snapshot_of_what_is_gone_is_refused_and_leaves_nothing") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    btrfs(&["subvolume", "delete"], &root.data("a"));
    assert_eq!(root.snapshot("s", &volume).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert_eq!(root.clone_of("c", &volume, MIB).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert!(root.find_snapshot("s").is_none() && root.find("c").is_none());
}

#[test]
fn copies_of_one_volume_and_lives_of_others_run_at_once() {
    if !needs_root("copies_of_one_volume_and_lives_of_others_run_at_once") {
        return;
    }
    for keys in ["", r#""quota": "full""#] {
        let root = Root::new(keys);
        let shared = root.create("shared", 16 * MIB).unwrap();
        fill(&root.data("shared").join("file"), MIB).unwrap();
        let life = |thread: u32| {
            for round in 0..8 {
                let name = |what: &str| format!("{what}-{thread}-{round}");
                let own = root.create(&name("own"), 4 * MIB).unwrap();
                fs::write(root.data(&own.name).join("file"), "data").unwrap();
                let snapshot = root.snapshot(&name("s"), &shared).unwrap();
                let restored = root.restore(&name("r"), &snapshot, 16 * MIB).unwrap();
                assert_eq!(fs::metadata(root.data(&restored.name).join("file")).unwrap().len(), MIB);
                root.delete(&own).unwrap();
                root.delete_snapshot(&snapshot).unwrap();
                root.delete(&restored).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let life = &life;
                scope.spawn(move || life(thread));
            }
        });
        assert_eq!(names(&root.path().join("volumes")), ["shared"]);
        assert_eq!(names(&root.path().join("snapshots")), [""; 0]);
    }
}
