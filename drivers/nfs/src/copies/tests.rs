use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::root::Root;
use dunnage_driver_api::{
    CapacityRange, ContentSource, Context, Create, CreateSnapshot, Driver, Fingerprint, Parameters, Snapshot,
    SnapshotId, SnapshotKey, Snapshots, SourceId, System, TargetKey, Volume, VolumeId,
};
use tempfile::TempDir;

use super::*;
use crate::Nfs;
use crate::store::Store;

/// So many that a copy is cut off long before its end.
const FILES: usize = 6000;

pub(crate) fn cx() -> Context {
    Context::new(Duration::from_secs(60), Arc::new(System))
}

/// Nobody waits: what takes longer than a moment is begun alone.
fn impatient() -> Context {
    Context::new(Duration::ZERO, Arc::new(System))
}

pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < late, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An export that is a folder of this machine.
pub(crate) struct Export(TempDir);

impl Export {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Root::init(temp.path(), Nfs::NAME).unwrap();
        Self(temp)
    }

    pub(crate) fn try_open(&self, node: &str) -> Result<Arc<Store>> {
        let config = serde_json::json!({"server": "nas", "export": "/", "quota": "none"});
        let folder = Folder::at(self.0.path()).unwrap();
        Store::open(&serde_json::from_value(config).unwrap(), folder, &node.parse().unwrap(), 16)
    }

    /// The threads of the one before let go of its lock when they end.
    pub(crate) fn open(&self, node: &str) -> Arc<Store> {
        until("the root can be opened", || self.try_open(node).ok())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn nothing_is_left(&self) {
        let children = |path: &str| fs::read_dir(self.path(path)).unwrap().count();
        for folder in [".dunnage/jobs", "unfinished"] {
            until(folder, || (children(folder) == 0).then_some(()));
        }
    }

    /// The whole files of a copy, and which files they are.
    fn whole(&self, folder: &str) -> BTreeMap<std::ffi::OsString, u64> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return BTreeMap::new() };
        let whole = entries.filter_map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().ok()?;
            (metadata.mode() & 0o7777 == 0o644).then(|| (entry.file_name(), metadata.ino()))
        });
        whole.collect()
    }
}

pub(crate) fn request(name: &str, class: &[(&str, &str)]) -> CreateVolume {
    let range = CapacityRange::new(4096, 0).unwrap();
    let parameters = Parameters::new(class.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
    CreateVolume::new(name, range, Vec::new(), parameters, Fingerprint::of(&BTreeMap::new()))
}

pub(crate) fn id(store: &Store, volume: &Volume) -> VolumeId {
    let (instance, key, generation) = (store.instance().clone(), volume.key.clone(), volume.generation.clone());
    VolumeId { instance, key, generation }
}

/// Who waits asks again where a copy takes longer than a call may.
fn again<T>(cx: &Context, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Running && Instant::now() < cx.deadline => {}
            answer => return answer,
        }
    }
}

pub(crate) fn snap(store: &Store, cx: &Context, name: &str, volume: &Volume) -> Result<Snapshot> {
    let fingerprint = Fingerprint::of(&BTreeMap::new());
    let request = CreateSnapshot::new(name, id(store, volume), volume.clone(), Default::default(), fingerprint);
    again(cx, || Snapshots::create(&*store.copies, cx, &request))
}

fn clone(store: &Store, cx: &Context, volume: &Volume, request: CreateVolume) -> Result<Volume> {
    let source = SourceId::Volume(id(store, volume));
    let request = request.holding(source, ContentSource::Volume(volume.clone())).unwrap();
    again(cx, || match store.volume(&request.key)? {
        Some(found) => Ok(found),
        None => store.create(cx, &request),
    })
}

pub(crate) fn full(export: &Export, store: &Store, name: &str, files: usize) -> Volume {
    let volume = store.create(&cx(), &request(name, &[])).unwrap();
    for file in 0..files {
        fs::write(export.path(&format!("volumes/{name}/{file}")), vec![file as u8; file % 3000]).unwrap();
    }
    volume
}

/// A snapshot that nobody waits for, in the middle.
fn begun(export: &Export, store: &Store) -> Volume {
    let volume = full(export, store, "a", FILES);
    assert_eq!(snap(store, &impatient(), "s", &volume).unwrap_err().kind(), ErrorKind::Running);
    until("some files are copied", || (export.whole("unfinished/snapshot.s/tree").len() > 20).then_some(()));
    volume
}

fn ready(store: &Store) -> Option<Snapshot> {
    store.copies.find(&cx(), &SnapshotKey::of_name("s")).unwrap()
}

#[test]
fn copies_go_where_their_class_says_and_keep_what_it_says() {
    let export = Export::new();
    let store = export.open("node-1");
    let volume = full(&export, &store, "a", 5);
    let snapshot = snap(&store, &cx(), "s", &volume).unwrap();
    assert!(snapshot.ready);
    let class = [("folder", "team/${name}"), ("onDelete", "archive")];
    let copy = clone(&store, &cx(), &volume, request("c", &class)).unwrap();
    assert_eq!(fs::read(export.path("volumes/team/c/3")).unwrap(), [3; 3]);
    // The same folder of another name is the copy's.
    let taken = store.create(&cx(), &request("d", &[("folder", "team/c")])).unwrap_err();
    assert!(taken.to_string().contains("cannot be a new volume's"), "{taken}");
    let taken = clone(&store, &cx(), &volume, request("d", &[("folder", "team/c/below")])).unwrap_err();
    assert!(taken.to_string().contains("cannot be a new volume's"), "{taken}");

    let source = SourceId::Snapshot(SnapshotId {
        instance: store.instance().clone(),
        key: snapshot.key.clone(),
        generation: snapshot.generation.clone(),
    });
    store.delete(&cx(), &volume).unwrap();
    let restore = request("r", &class).holding(source, ContentSource::Snapshot(snapshot.clone())).unwrap();
    again(&cx(), || store.create(&cx(), &restore)).unwrap();
    assert_eq!(fs::read_dir(export.path("volumes/team/r")).unwrap().count(), 5);
    store.copies.delete(&cx(), &snapshot).unwrap();
    store.delete(&cx(), &copy).unwrap();
    assert!(!export.path("volumes/team/c").exists() && !export.path("snapshots/s").exists());
    let kept = export.path(&format!("archive/team/c.{}", copy.generation));
    assert_eq!(fs::read_dir(kept).unwrap().count(), 5);
    store.create(&cx(), &request("d", &[("folder", "team/c")])).unwrap();
    export.nothing_is_left();
}

#[test]
fn the_folder_of_a_copy_is_taken_while_it_is_made_and_free_when_it_is_given_up() {
    let export = Export::new();
    let mut store = export.open("node-1");
    let volume = full(&export, &store, "a", FILES);
    let class = [("folder", "team/c")];
    let begun = clone(&store, &impatient(), &volume, request("c", &class)).unwrap_err();
    assert_eq!(begun.kind(), ErrorKind::Running);
    // Also by the process after this one.
    for _ in 0..2 {
        let taken = store.create(&cx(), &request("other", &class)).unwrap_err();
        assert!(taken.to_string().contains("cannot be a new volume's"), "{taken}");
        drop(store);
        store = export.open("node-1");
    }
    let key = TargetKey::Volume("c".parse().unwrap());
    let copy = store.copies.copying().copies().into_iter().find(|copy| copy.target == key).unwrap();
    store.abandon(&cx(), &"c".parse().unwrap(), &copy.generation).unwrap();
    store.create(&cx(), &request("other", &class)).unwrap();
    assert!(store.volume(&"c".parse().unwrap()).unwrap().is_none());
    export.nothing_is_left();
}

#[test]
fn another_machine_goes_on_with_a_copy_and_copies_nothing_twice() {
    let export = Export::new();
    let store = export.open("node-1");
    begun(&export, &store);
    drop(store);
    let before = export.whole("unfinished/snapshot.s/tree");
    assert!(before.len() > 20 && before.len() < FILES, "{} files were whole", before.len());
    let store = export.open("node-2");
    until("the snapshot is whole without being asked for", || ready(&store));
    let after = export.whole("snapshots/s");
    assert_eq!(after.len(), FILES);
    assert!(before.iter().all(|(name, inode)| after[name] == *inode), "a file was copied again");
    export.nothing_is_left();
}

#[test]
fn who_has_lost_the_root_leaves_its_copies_to_who_has_it() {
    let export = Export::new();
    let store = export.open("node-1");
    let volume = begun(&export, &store);
    // As another machine does which got the lock of one that was cut off.
    fs::write(export.path(".dunnage/holder.json"), r#"{"version":1,"node":"node-2","word":"other"}"#).unwrap();
    let told =
        until("its attempt ends", || store.copies.copying().copies().first().and_then(|copy| copy.error.clone()));
    assert!(told.to_string().contains("lost to another process"), "{told}");
    let waited = Snapshots::create(&*store.copies, &cx(), &{
        let fingerprint = Fingerprint::of(&BTreeMap::new());
        CreateSnapshot::new("s", id(&store, &volume), volume.clone(), Default::default(), fingerprint)
    });
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Running);
    assert!(store.copies.release(&cx(), &volume).is_err(), "its volume is deleted");
    assert!(export.path(".dunnage/jobs/snapshot.s").exists() && !export.path("snapshots/s").exists());
    drop(store);
    let store = export.open("node-2");
    until("the snapshot is whole", || ready(&store));
    assert_eq!(fs::read_dir(export.path("snapshots/s")).unwrap().count(), FILES);
}

#[test]
fn what_passes_by_itself_is_no_reason_to_give_a_copy_up() {
    let export = Export::new();
    let store = export.open("node-1");
    for (number, passes) in [(libc::ETIMEDOUT, true), (libc::ESTALE, true), (libc::EACCES, false), (libc::EIO, false)] {
        let error = Error::io("cannot read a file", io::Error::from_raw_os_error(number)).with("volume", "a");
        assert_eq!(store.parts.is_passing(&error), passes, "{}", error.report());
    }
}

#[test]
fn what_has_the_place_of_a_snapshot_is_left_alone() {
    let export = Export::new();
    let store = export.open("node-1");
    let volume = full(&export, &store, "a", 3);
    fs::create_dir(export.path("snapshots/s")).unwrap();
    fs::write(export.path("snapshots/s/thesis.tex"), "words").unwrap();
    let error = snap(&store, &cx(), "s", &volume).unwrap_err();
    assert!(error.report().contains("restore the record, or move it away"), "{}", error.report());
    assert!(export.path("snapshots/s/thesis.tex").exists());
    export.nothing_is_left();
}
