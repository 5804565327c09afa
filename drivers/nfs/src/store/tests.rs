use std::fs;

use super::*;
use crate::copies::tests::{Export, cx, request};

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
    fs::write(export.path(".dunnage/volumes/a"), "broken").unwrap();
    let store = export.open("node-1");
    store.remove_remains(OsStr::new("shared"), None).unwrap();
    let refused = store.create(&cx(), &request("shared", &[])).unwrap_err();
    assert!(refused.to_string().contains("whose record is broken"), "{refused}");
    assert!(export.path("volumes/shared").exists());
    store.create(&cx(), &request("other", &[])).unwrap();
}
