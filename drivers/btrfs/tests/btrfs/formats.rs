//! What is kept of volumes and snapshots, frozen: this release reads it, and writes the same.

use std::fs;

use dunnage_testkit::needs_root;
use serde_json::{Value, json};

use crate::support::{MIB, Root, btrfs};

/// A clone in release 0.1.
fn volume(instance: &str) -> Value {
    json!({
        "version": 1,
        "volume": {
            "key": "c",
            "name": "c",
            "generation": "aaaaaaaaaaaba",
            "capacity": 16_777_216,
            "fingerprint": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "created": 1_764_000_000,
            "source": {"volume": format!("{instance}.a.aaaaaaaaaaaaa")},
        },
        "extra": {},
    })
}

/// A snapshot in release 0.1.
fn snapshot(instance: &str) -> Value {
    json!({
        "version": 1,
        "volume": {
            "key": "s",
            "name": "s",
            "generation": "aaaaaaaaaaaca",
            "capacity": 16_777_216,
            "fingerprint": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "created": 1_764_000_000,
        },
        "extra": {
            "source": format!("{instance}.a.aaaaaaaaaaaaa"),
            "created": {"secs": 1_764_000_000, "nanos": 7},
            "ready": true,
            "extra": {},
        },
    })
}

/// The names of the fields and the kinds of their values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

#[test]
fn what_release_0_1_kept_is_read_and_what_is_kept_now_has_its_form() {
    if !needs_root("what_release_0_1_kept_is_read_and_what_is_kept_now_has_its_form") {
        return;
    }
    let mut root = Root::new("");
    let source = root.create("a", 16 * MIB).unwrap();
    root.clone_of("c", &source, 16 * MIB).unwrap();
    root.snapshot("s", &source).unwrap();
    let instance = root.0.instance.to_string();
    let (clone, cut) = (root.path().join(".dunnage/volumes/c"), root.path().join(".dunnage/snapshots/s"));
    for (path, kept) in [(&clone, volume(&instance)), (&cut, snapshot(&instance))] {
        let written: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(shape(&written), shape(&kept));
        fs::write(path, kept.to_string()).unwrap();
    }
    root.restart();
    let (clone, cut) = (root.find("c").unwrap(), root.find_snapshot("s").unwrap());
    assert_eq!((clone.generation.as_str(), cut.generation.as_str()), ("aaaaaaaaaaaba", "aaaaaaaaaaaca"));
    assert_eq!((clone.created, cut.created.as_nanos()), (1_764_000_000, 1_764_000_000_000_000_007));
    root.source(&clone).unwrap();
    root.restore("r", &cut, 16 * MIB).unwrap();
    root.delete_snapshot(&cut).unwrap();
    assert!(btrfs(&["subvolume", "list"], root.path()).contains("volumes/r"));
}
