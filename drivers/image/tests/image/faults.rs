//! A root on a file system of which every operation fails once, in each way.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dunnage_driver_api::System;
use dunnage_driver_image::Image;
use dunnage_testkit::{Opened, for_each_operation};

use crate::support::{Calls, MIB, bound, is_root, until};

fn open(driver: &Image) -> Opened {
    // The threads of the one before let go of its lock when they end.
    until("the root can be opened", || Opened::new(driver, Arc::new(System)).ok())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// After the next start; what is removed goes in the background.
fn nothing_is_left(driver: &Image, root: &Path) {
    let _store = open(driver);
    let late = Instant::now() + Duration::from_secs(30);
    loop {
        let left = ["images", ".dunnage/trash", ".dunnage/volumes"].map(|folder| names(&root.join(folder)));
        if left.iter().all(Vec::is_empty) {
            break;
        }
        assert!(Instant::now() < late, "left: {left:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(bound().iter().filter(|(_, image)| image.starts_with(root)).count(), 0, "a device is left");
}

#[test]
fn a_life_can_be_gone_on_with_wherever_the_disk_fails() {
    if !is_root() {
        return;
    }
    let hits = for_each_operation(|faults, root| {
        let driver: Image = serde_json::from_value(serde_json::json!({ "root": root })).unwrap();
        drop(faults.during(|| Opened::new(&driver, Arc::new(System))));
        let store = open(&driver);
        let volume = faults.repeated(|| store.create("a", MIB));
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&volume));
        assert_eq!(std::fs::metadata(root.join("images/a")).unwrap().len(), MIB);
        let grown = faults.repeated(|| store.expand(&volume, 2 * MIB)).capacity;
        assert_eq!(store.list().unwrap()[0].capacity, grown);
        assert_eq!(std::fs::metadata(root.join("images/a")).unwrap().len(), 2 * MIB);
        faults.repeated(|| store.delete(&volume));
        assert_eq!(store.list().unwrap(), []);
        drop(store);
        nothing_is_left(&driver, root);
    });
    assert!(hits > 200, "{hits}");
}

#[test]
fn a_device_is_bound_once_and_let_go_wherever_the_disk_fails() {
    if !is_root() {
        return;
    }
    let hits = for_each_operation(|faults, root| {
        let driver: Image = serde_json::from_value(serde_json::json!({ "root": root })).unwrap();
        let store = open(&driver);
        let volume = store.create("a", MIB).unwrap();
        let (calls, kept) = (Calls(store.backend.clone()), Mutex::default());
        let first = faults.during(|| calls.source_keeping(&volume, &kept));
        let first = first.ok().map(|source| source.path);
        let source = calls.source_keeping(&volume, &kept).unwrap();
        assert!(first.is_none_or(|path| path == source.path), "another device");
        assert_eq!(bound().iter().filter(|(_, image)| image.starts_with(root)).count(), 1);
        let record = source.release.clone();
        drop(source.device);
        faults.repeated(|| calls.release(&record));
        store.delete(&volume).unwrap();
        drop((calls, store));
        nothing_is_left(&driver, root);
    });
    assert!(hits > 10, "{hits}");
}
