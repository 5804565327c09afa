use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::super::Root;
use super::*;
use crate::capacity::{Bytes, CapacityRange};
use crate::id::Fingerprint;
use crate::parameters::Parameters;
use crate::root::Record;
use crate::volume::CreateVolume;

/// More than any of this takes.
const LONG: Duration = Duration::from_secs(60);

struct Store {
    records: Records<()>,
    data: Folder,
    found: Sender<String>,
}

/// A store with data of these names.
fn store(names: &[&str]) -> (TempDir, Arc<Store>, Receiver<String>) {
    let temp = tempfile::tempdir().unwrap();
    Root::init(temp.path(), "dir").unwrap();
    let root = Root::open(temp.path(), "dir").unwrap();
    let records = root.records().unwrap();
    let data = root.data("data", &records).unwrap();
    names.iter().for_each(|name| fs::create_dir(temp.path().join("data").join(name)).unwrap());
    let (found, told) = channel();
    (temp, Arc::new(Store { records, data, found }), told)
}

fn begin(store: &Arc<Store>) {
    let tell = |store: &Store, name: &OsStr, key: Option<&VolumeKey>| {
        let name = name.to_str().unwrap();
        store.found.send(if key.is_some() { name.to_owned() } else { format!("no key: {name}") }).unwrap();
        Ok(())
    };
    sweep(store, |store| (&store.records, &store.data), tell).unwrap();
}

fn put(store: &Store, name: &str) {
    let request = CreateVolume::new(
        name,
        CapacityRange::default(),
        Vec::new(),
        Parameters::default(),
        Fingerprint::of(&Default::default()),
    );
    store.records.put(&Record { volume: request.volume(Bytes::new(1)).unwrap(), extra: () }).unwrap();
}

#[test]
fn data_without_a_record_is_found_and_no_other() {
    let (_temp, store, told) = store(&["a", "b", "c", ".hidden"]);
    put(&store, "b");
    begin(&store);
    let mut found: Vec<_> = (0..3).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    found.sort();
    assert_eq!(found, ["a", "c", "no key: .hidden"]);
    // With the store goes the only sender: there was nothing more.
    drop(store);
    assert!(told.recv_timeout(LONG).is_err());
}

#[test]
fn what_a_create_is_making_is_not_taken_for_remains() {
    let (_temp, store, told) = store(&["a", "b"]);
    let making = store.records.making(&VolumeKey::of_name("a"));
    begin(&store);
    assert_eq!(told.recv_timeout(LONG).unwrap(), "b");
    put(&store, "a");
    drop(making);
    drop(store);
    assert!(told.recv_timeout(LONG).is_err());
}

#[test]
fn a_create_waits_until_what_lies_under_its_name_is_removed() {
    let (_temp, store, _told) = store(&[]);
    let key = VolumeKey::of_name("a");
    let removing = store.records.held().try_hold(&key).unwrap();
    assert!(store.records.held().try_hold(&key).is_none());
    let _other = store.records.making(&VolumeKey::of_name("b"));
    let (made, is_made) = channel();
    let (held, wanted) = (store.records.held().clone(), key.clone());
    let create = std::thread::spawn(move || {
        let _making = held.hold(&wanted);
        made.send(()).unwrap();
    });
    assert!(is_made.try_recv().is_err());
    drop(removing);
    is_made.recv_timeout(LONG).unwrap();
    create.join().unwrap();
    assert!(store.records.held().try_hold(&key).is_some());
}
