//! The driver on a file system of which every operation fails once, in each way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::System;
use dunnage_driver_dir::Dir;
use dunnage_testkit::{Opened, for_each_operation, needs_root};

fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < late, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn open(driver: &Dir) -> Opened {
    // The threads of the one before let go of its lock when they end.
    until("the root can be opened", || Opened::new(driver, Arc::new(System)).ok())
}

/// The files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    // One that goes meanwhile is gone.
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() }).collect()
}

/// After the next start; what is removed goes in the background.
fn nothing_is_left(driver: &Dir, root: &Path) {
    let _store = open(driver);
    let late = Instant::now() + Duration::from_secs(30);
    let is_empty = || std::fs::read_dir(root.join("volumes")).unwrap().next().is_none();
    while !is_empty() || files(root) != [root.join(".dunnage/instance.json")].into() {
        assert!(Instant::now() < late, "left: {:?}", files(root));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_life_can_be_gone_on_with_wherever_the_disk_fails() {
    if !needs_root("a_life_can_be_gone_on_with_wherever_the_disk_fails") {
        return;
    }
    let hits = for_each_operation(|faults, root| {
        let driver: Dir = serde_json::from_value(serde_json::json!({"root": root, "quota": "none"})).unwrap();
        drop(faults.during(|| Opened::new(&driver, Arc::new(System))));
        let store = open(&driver);
        let volume = faults.repeated(|| store.create("a", 4096));
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&volume));
        let grown = faults.repeated(|| store.expand(&volume, 8192)).capacity;
        assert_eq!(store.list().unwrap()[0].capacity, grown);
        std::fs::write(root.join("volumes/a/file"), "data").unwrap();
        faults.repeated(|| store.delete(&volume));
        assert_eq!(store.list().unwrap(), []);
        drop(store);
        nothing_is_left(&driver, root);
    });
    assert!(hits > 200, "{hits}");
}

#[test]
fn a_create_that_is_not_repeated_leaves_nothing_wherever_the_disk_fails() {
    if !needs_root("a_create_that_is_not_repeated_leaves_nothing_wherever_the_disk_fails") {
        return;
    }
    for_each_operation(|faults, root| {
        let driver: Dir = serde_json::from_value(serde_json::json!({"root": root, "quota": "none"})).unwrap();
        let store = open(&driver);
        let made = faults.during(|| store.create("a", 4096));
        // Told as failed, it may exist: then it is listed, and whoever repeats the call is given it.
        let volumes = store.list().unwrap();
        assert!(made.is_err() || made.is_ok_and(|volume| volumes == [volume]));
        for volume in &volumes {
            assert_eq!(store.create("a", 4096).unwrap(), *volume);
            store.delete(volume).unwrap();
        }
        drop(store);
        nothing_is_left(&driver, root);
    });
}
