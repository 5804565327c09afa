use std::fs;

use dunnage_driver_api::Snapshots;

use super::*;
use crate::copies::tests::{Export, cx, full, request, snap};

#[test]
fn the_empty_folder_of_a_volume_is_no_remainder_of_a_create_whatever_its_key() {
    let export = Export::new();
    let store = export.open("node-1");
    store.create(&cx(), &request("a", &[("folder", "shared")])).unwrap();
    store.create(&cx(), &request("b", &[("folder", "team/b")])).unwrap();
    for left in ["left", "team-left"] {
        fs::create_dir(export.path(&format!("volumes/{left}"))).unwrap();
    }
    drop(store);
    let store = export.open("node-1");
    for name in ["shared", "team", "left"] {
        store.remove_remains(OsStr::new(name), name.parse().ok().as_ref()).unwrap();
    }
    assert!(export.path("volumes/shared").exists() && export.path("volumes/team/b").exists());
    assert!(!export.path("volumes/left").exists());
    crate::copies::tests::until("what is left goes by itself", || {
        (!export.path("volumes/team-left").exists()).then_some(())
    });
    assert!(export.path("volumes/shared").exists());
}

#[test]
fn a_volume_is_not_given_the_folder_of_another_because_that_is_its_name() {
    let export = Export::new();
    let store = export.open("node-1");
    let volume = store.create(&cx(), &request("a", &[("folder", "shared")])).unwrap();
    store.create(&cx(), &request("b", &[("folder", "team/b")])).unwrap();
    drop(store);
    let store = export.open("node-1");
    for name in ["shared", "team"] {
        let refused = store.create(&cx(), &request(name, &[])).unwrap_err();
        assert!(refused.to_string().contains("cannot be a new volume's"), "{refused}");
    }
    assert!(store.health(&cx(), &volume).unwrap().is_empty());
    drop(store);
    // Nor where nobody can say where that other one is.
    let record = fs::read(export.path(".dunnage/volumes/a")).unwrap();
    fs::write(export.path(".dunnage/volumes/a"), "broken").unwrap();
    let store = export.open("node-1");
    store.remove_remains(OsStr::new("shared"), None).unwrap();
    let refused = store.create(&cx(), &request("shared", &[])).unwrap_err();
    assert!(refused.to_string().contains("whose record is broken"), "{refused}");
    assert!(export.path("volumes/shared").exists());
    store.create(&cx(), &request("other", &[])).unwrap();
    fs::write(export.path(".dunnage/volumes/a"), record).unwrap();
    let refused = store.create(&cx(), &request("shared", &[])).unwrap_err();
    assert!(refused.to_string().contains("cannot be a new volume's"), "{refused}");
}

/// The host has found a volume, the store is lost, and another of that name is made by who has it then.
#[test]
fn a_late_call_for_a_deleted_volume_or_snapshot_does_not_meet_its_successor() {
    let export = Export::new();
    let store = export.open("node-1");
    let range = CapacityRange::new(1 << 20, 0).unwrap();
    for class in ["delete", "archive", "retain"].map(|what| [("onDelete", what)]) {
        let old = full(&export, &store, "a", 3);
        let cut = snap(&store, &cx(), "s", &old).unwrap();
        store.copies.delete(&cx(), &cut).unwrap();
        store.delete(&cx(), &old).unwrap();
        let new = store.create(&cx(), &request("a", &class)).unwrap();
        fs::write(export.path("volumes/a/file"), "words").unwrap();
        let later = snap(&store, &cx(), "s", &new).unwrap();
        store.delete(&cx(), &old).unwrap();
        store.copies.delete(&cx(), &cut).unwrap();
        assert_eq!(store.expand(&cx(), &old, range).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(snap(&store, &cx(), "other", &old).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.health(&cx(), &old).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.volume(&new.key).unwrap(), Some(new.clone()));
        assert!(export.path("volumes/a/file").exists() && export.path("snapshots/s/file").exists());
        store.copies.delete(&cx(), &later).unwrap();
        store.delete(&cx(), &new).unwrap();
        // Nor what was kept of it.
        let is_retained = class == [("onDelete", "retain")];
        store.delete(&cx(), &new).unwrap();
        assert_eq!(export.path("volumes/a/file").exists(), is_retained);
    }
}

#[test]
fn the_folders_above_a_volume_go_with_the_last_that_was_in_them() {
    let export = Export::new();
    let store = export.open("node-1");
    let at = |name, folder| store.create(&cx(), &request(name, &[("folder", folder)])).unwrap();
    let (deep, near, other) = (at("a", "x/y/a"), at("b", "x/b"), at("c", "z/c"));
    fs::write(export.path("volumes/z/README"), "ours").unwrap();
    store.delete(&cx(), &deep).unwrap();
    assert!(!export.path("volumes/x/y").exists() && export.path("volumes/x/b").exists());
    store.delete(&cx(), &near).unwrap();
    store.delete(&cx(), &other).unwrap();
    assert!(!export.path("volumes/x").exists() && export.path("volumes/z/README").exists());
    at("a", "x/y/a");
}
