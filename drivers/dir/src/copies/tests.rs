use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    CapacityRange, ContentSource, Context, Create, CreateSnapshot, Driver, ErrorKind, Fingerprint, Snapshot,
    SnapshotId, SnapshotKey, Snapshots, SourceId, System, Volume, VolumeId,
};
use dunnage_testkit::needs_root;
use serde_json::json;

use super::*;
use crate::store::tests::{Rig, cx, dir, kind, opening, request};

/// Nobody waits: what takes longer than a moment is begun alone.
fn impatient() -> Context {
    Context::new(Duration::ZERO, Arc::new(System))
}

/// Who waits asks again where a copy takes longer than a call may: a disk that others write to is slow to sync.
fn as_an_orchestrator<T>(cx: &Context, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Running && Instant::now() < cx.deadline => {}
            answer => return answer,
        }
    }
}

fn fingerprint(of: &str) -> Fingerprint {
    Fingerprint::of(&BTreeMap::from([("of".to_owned(), of.to_owned())]))
}

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

impl Rig {
    fn id(&self, volume: &Volume) -> VolumeId {
        let (key, generation) = (volume.key.clone(), volume.generation.clone());
        VolumeId { instance: self.backend().instance.clone(), key, generation }
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        self.backend().snapshots.clone().unwrap().0
    }

    fn snap(&self, cx: &Context, name: &str, volume: &Volume) -> Result<Snapshot> {
        let id = self.id(volume);
        let fingerprint = fingerprint(&id.to_string());
        let request = CreateSnapshot::new(name, id, volume.clone(), Default::default(), fingerprint);
        as_an_orchestrator(cx, || self.snapshots().create(cx, &request))
    }

    fn snapshot(&self, name: &str) -> Option<Snapshot> {
        self.snapshots().find(&cx(), &SnapshotKey::of_name(name)).unwrap()
    }

    fn listed(&self) -> Vec<Snapshot> {
        self.snapshots().list(&cx(), None, 10).unwrap()
    }

    fn copy(&self, cx: &Context, name: &str, of: &ContentSource) -> Result<Volume> {
        let instance = self.backend().instance.clone();
        let source = match of {
            ContentSource::Volume(volume) => SourceId::Volume(self.id(volume)),
            ContentSource::Snapshot(snapshot) => SourceId::Snapshot(SnapshotId {
                instance,
                key: snapshot.key.clone(),
                generation: snapshot.generation.clone(),
            }),
        };
        let range = CapacityRange::new(1 << 20, 0).unwrap();
        let request =
            CreateVolume::new(name, range, Vec::new(), Default::default(), fingerprint(&format!("{source:?}")));
        let request = request.holding(source, of.clone()).unwrap();
        // As a host does, which looks first.
        as_an_orchestrator(cx, || match self.volumes().find(cx, &request.key)? {
            Some(found) => Ok(found),
            None => self.create_calls().create(cx, &request),
        })
    }

    fn create_calls(&self) -> Arc<dyn Create> {
        self.backend().create.clone().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    /// A volume of so many files.
    fn full(&self, name: &str, files: usize) -> Volume {
        let volume = self.create(name).unwrap();
        for file in 0..files {
            fs::write(self.data(name).join(file.to_string()), vec![file as u8; file % 3000]).unwrap();
        }
        volume
    }

    /// What of a copy there is, by name, and which file it is.
    fn unfinished(&self, name: &str) -> BTreeMap<std::ffi::OsString, u64> {
        let Ok(entries) = fs::read_dir(self.path("unfinished").join(name).join("tree")) else { return BTreeMap::new() };
        let whole = entries.map(|entry| entry.unwrap()).filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            (metadata.permissions().mode() & 0o7777 == 0o644).then(|| (entry.file_name(), metadata.ino()))
        });
        whole.collect()
    }

    fn nothing_is_left(&self) {
        let children = |path: &str| fs::read_dir(self.path(path)).unwrap().map(|entry| entry.unwrap().file_name());
        for folder in [".dunnage/jobs", "unfinished"] {
            until(folder, || (children(folder).count() == 0).then_some(()));
        }
    }
}

#[test]
fn a_snapshot_is_restored_after_its_volume_has_changed_and_is_gone() {
    let mut rig = Rig::new();
    let volume = rig.full("a", 10);
    fs::set_permissions(rig.data("a"), fs::Permissions::from_mode(0o2750)).unwrap();
    let snapshot = rig.snap(&cx(), "s", &volume).unwrap();
    assert!(snapshot.ready && snapshot.size == volume.capacity);
    assert_eq!(rig.snap(&cx(), "s", &volume).unwrap(), snapshot, "the same request again");
    fs::write(rig.data("a").join("3"), "late").unwrap();
    let clone = rig.copy(&cx(), "c", &ContentSource::Volume(volume.clone())).unwrap();
    rig.delete(&volume).unwrap();
    rig.restart();
    assert_eq!(rig.listed(), [rig.snapshot("s").unwrap()]);
    assert_eq!(rig.snapshot("s").unwrap(), snapshot);
    let restored = rig.copy(&cx(), "r", &ContentSource::Snapshot(snapshot.clone())).unwrap();
    assert_eq!(rig.copy(&cx(), "r", &ContentSource::Snapshot(snapshot.clone())).unwrap(), restored);
    assert!(restored.source.is_some() && restored.capacity.get() == 1 << 20);
    assert_eq!(rig.find("r").unwrap(), restored);
    rig.source(&restored).unwrap();
    assert_eq!(fs::read(rig.data("r").join("3")).unwrap(), [3; 3]);
    assert_eq!(fs::read_to_string(rig.data("c").join("3")).unwrap(), "late");
    assert_eq!(fs::metadata(rig.data("r")).unwrap().permissions().mode() & 0o7777, 0o2750);
    rig.snapshots().delete(&cx(), &snapshot).unwrap();
    rig.snapshots().delete(&cx(), &snapshot).unwrap();
    assert!(rig.snapshot("s").is_none() && rig.listed().is_empty());
    assert_eq!(fs::read_dir(rig.data("r")).unwrap().count(), 10, "a restore needs its snapshot no more");
    [clone, restored].iter().for_each(|volume| rig.delete(volume).unwrap());
    assert_eq!(fs::read_dir(rig.path("snapshots")).unwrap().count(), 0);
    rig.nothing_is_left();
}

#[test]
fn a_copy_is_not_there_before_it_is_whole_and_the_same_call_joins_it() {
    let rig = Rig::new();
    let volume = rig.full("a", 2000);
    assert_eq!(kind(rig.snap(&impatient(), "s", &volume)), ErrorKind::Running);
    assert!(rig.snapshot("s").is_none() && rig.listed().is_empty());
    let before = fs::read_to_string(rig.path(".dunnage/jobs/snapshot.s")).unwrap();
    let other = rig.create("b").unwrap();
    assert_eq!(kind(rig.snap(&cx(), "s", &other)), ErrorKind::AlreadyExists);
    let snapshot = rig.snap(&cx(), "s", &volume).unwrap();
    assert!(before.contains(&snapshot.generation.to_string()), "it is the one that was begun");
    assert_eq!(fs::read_dir(rig.path("snapshots/s")).unwrap().count(), 2000);
    let content = ContentSource::Snapshot(snapshot.clone());
    assert_eq!(kind(rig.copy(&impatient(), "r", &content)), ErrorKind::Running);
    assert_eq!(rig.find("r"), None);
    let refused = rig.snapshots().delete(&cx(), &snapshot).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(refused.report().contains("volume \"r\""), "{}", refused.report());
    let request = request("r", 1 << 20, 0);
    assert_eq!(kind(rig.create_calls().create(&cx(), &request)), ErrorKind::AlreadyExists);
    rig.copy(&cx(), "r", &content).unwrap();
    rig.snapshots().delete(&cx(), &snapshot).unwrap();
    rig.nothing_is_left();
}

#[test]
fn a_volume_that_is_being_copied_is_used_and_not_deleted() {
    let rig = Rig::new();
    let volume = rig.full("a", 2000);
    assert_eq!(kind(rig.snap(&impatient(), "s", &volume)), ErrorKind::Running);
    rig.source(&volume).unwrap();
    let refused = rig.delete(&volume).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(refused.report().contains("snapshot \"s\""), "{}", refused.report());
    rig.snap(&cx(), "s", &volume).unwrap();
    rig.delete(&volume).unwrap();
    assert_eq!(fs::read_dir(rig.path("snapshots/s")).unwrap().count(), 2000);
}

/// So many that a copy is cut off long before its end.
const FILES: usize = 1500;

/// Closes a root in the middle of a copy that nobody waits for; answers what was whole.
fn cut_off_in_the_middle(rig: &mut Rig) -> BTreeMap<std::ffi::OsString, u64> {
    let volume = rig.full("a", FILES);
    assert_eq!(kind(rig.snap(&impatient(), "s", &volume)), ErrorKind::Running);
    until("some files are copied", || (rig.unfinished("snapshot.s").len() > 20).then_some(()));
    rig.backend = None;
    let before = rig.unfinished("snapshot.s");
    assert!(before.len() > 20 && before.len() < FILES, "{} files were whole", before.len());
    before
}

/// Of these, how many the snapshot has.
fn kept(rig: &Rig, before: &BTreeMap<std::ffi::OsString, u64>) -> usize {
    until("the snapshot is whole without being asked for", || rig.snapshot("s"));
    assert_eq!(fs::read_dir(rig.path("snapshots/s")).unwrap().count(), FILES);
    let same = |(name, inode): &(&std::ffi::OsString, &u64)| {
        fs::metadata(rig.path("snapshots/s").join(name)).unwrap().ino() == **inode
    };
    before.iter().filter(same).count()
}

#[test]
fn a_copy_that_was_cut_off_goes_on_by_itself_and_copies_nothing_twice() {
    let mut rig = Rig::new();
    let before = cut_off_in_the_middle(&mut rig);
    rig.restart();
    assert_eq!(kept(&rig, &before), before.len());
    rig.nothing_is_left();
}

#[test]
fn a_copy_without_a_quota_is_begun_anew_where_it_is_to_have_one() {
    let mut rig = Rig::new();
    let before = cut_off_in_the_middle(&mut rig);
    let job = rig.path(".dunnage/jobs/snapshot.s");
    let text = fs::read_to_string(&job).unwrap();
    let fields = |text: &str| {
        let job: serde_json::Value = serde_json::from_str(text).unwrap();
        job["extra"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let frozen = include_str!("../../../../tests/formats/0.1/dir/nightly.job.json");
    assert_eq!(fields(&text), fields(frozen), "another form needs another version");
    let other = text.replace("\"project\":false", "\"project\":true");
    assert_ne!(other, text);
    fs::write(&job, other).unwrap();
    // So that no new file can have the number of one that is gone.
    let _held: Vec<_> =
        before.keys().map(|name| fs::File::open(rig.path("unfinished/snapshot.s/tree").join(name)).unwrap()).collect();
    rig.restart();
    assert_eq!(kept(&rig, &before), 0);
}

#[test]
fn a_copy_that_is_in_its_place_and_has_no_record_gets_it() {
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    let job = fs::read_to_string(rig.path(".dunnage/jobs/snapshot.s")).unwrap();
    let record = fs::read(rig.path(".dunnage/snapshots/s")).unwrap();
    rig.restart();
    let whole = until("the snapshot is whole", || rig.snapshot("s"));
    rig.nothing_is_left();
    rig.backend = None;
    // As it is when the last step but one was the last.
    fs::write(rig.path(".dunnage/jobs/snapshot.s"), job.replace("\"whole\":false", "\"whole\":true")).unwrap();
    fs::write(rig.path(".dunnage/snapshots/s"), record).unwrap();
    rig.restart();
    assert_eq!(until("the snapshot has its record", || rig.snapshot("s")), whole);
    rig.nothing_is_left();
}

#[test]
fn a_copy_that_was_cut_off_before_its_record_was_written_is_none() {
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    fs::remove_file(rig.path(".dunnage/snapshots/s")).unwrap();
    rig.restart();
    rig.nothing_is_left();
    assert!(rig.snapshot("s").is_none() && !rig.path("snapshots/s").exists());
    let volume = rig.find("a").unwrap();
    rig.snap(&cx(), "s", &volume).unwrap();
}

/// A mount in a volume, which cannot be copied.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status();
        assert!(status.unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_copy_that_fails_is_told_and_leaves_nothing() {
    if !needs_root("a_copy_that_fails_is_told_and_leaves_nothing") {
        return;
    }
    let rig = Rig::new();
    let volume = rig.full("a", 10);
    let mounted = Mounted::new(rig.data("a").join("mounted"));
    for error in [
        rig.snap(&cx(), "s", &volume).unwrap_err(),
        rig.copy(&cx(), "c", &ContentSource::Volume(volume.clone())).unwrap_err(),
    ] {
        assert!(error.report().contains("volumes/a/mounted"), "{}", error.report());
        rig.nothing_is_left();
    }
    assert!(!rig.path("snapshots/s").exists() && !rig.data("c").exists() && rig.snapshot("s").is_none());
    drop(mounted);
    rig.snap(&cx(), "s", &volume).unwrap();
}

#[test]
fn a_copy_that_fails_and_that_nobody_asks_for_does_not_keep_its_source() {
    if !needs_root("a_copy_that_fails_and_that_nobody_asks_for_does_not_keep_its_source") {
        return;
    }
    let rig = Rig::new();
    let volume = rig.full("a", 2000);
    let mounted = Mounted::new(rig.data("a").join("mounted"));
    assert_eq!(kind(rig.snap(&impatient(), "s", &volume)), ErrorKind::Running);
    assert_eq!(kind(rig.copy(&impatient(), "c", &ContentSource::Volume(volume.clone()))), ErrorKind::Running);
    let copying = rig.backend().copying.clone().unwrap();
    until("both fail", || copying.copies().iter().all(|copy| copy.error.is_some()).then_some(()));
    drop(mounted);
    rig.delete(&volume).unwrap();
    rig.nothing_is_left();
    assert!(rig.listed().is_empty() && !rig.path("snapshots/s").exists());
}

#[test]
fn the_copy_of_an_empty_volume_is_no_remainder_of_a_create() {
    let mut rig = Rig::new();
    let (full, empty) = (rig.full("a", FILES), rig.create("e").unwrap());
    let clones = [("b1", &full), ("b2", &full), ("c", &empty)];
    for (name, of) in clones {
        let begun = rig.copy(&impatient(), name, &ContentSource::Volume(of.clone()));
        assert_eq!(kind(begun), ErrorKind::Running);
    }
    rig.backend = None;
    // As it is when it was put in its place and the process was killed. Two that take longer are worked on before it.
    let job = rig.path(".dunnage/jobs/volume.c");
    let text = fs::read_to_string(&job).unwrap();
    fs::write(&job, text.replace("\"whole\":false", "\"whole\":true")).unwrap();
    fs::create_dir(rig.data("c")).unwrap();
    let store = until("the root can be opened", || dir(rig.temp.path(), json!({})).store(&opening()).ok());
    let key = VolumeKey::of_name("c");
    store.remove_remains(key.as_str().as_ref(), Some(&key)).unwrap();
    assert!(rig.data("c").exists(), "a copy was taken for what a create left");
    assert!(store.copies.makes(&key), "it was a volume too soon: the test does not test");
    drop(store);
    rig.restart();
    let made = rig.copy(&cx(), "c", &ContentSource::Volume(empty)).unwrap();
    rig.source(&made).unwrap();
}

#[test]
fn a_snapshot_that_is_being_copied_is_given_up_by_its_id() {
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    rig.restart();
    let copying = rig.backend().copying.clone().unwrap();
    let generation = copying.copies().first().expect("nothing is copied").generation.clone();
    let (key, other) = (SnapshotKey::of_name("s"), "aaaaaaaaaaaaa".parse().unwrap());
    rig.snapshots().abandon(&cx(), &key, &other).unwrap();
    assert_eq!(copying.copies().len(), 1, "a copy was ended by the id of another");
    rig.snapshots().abandon(&cx(), &key, &generation).unwrap();
    rig.nothing_is_left();
    assert!(rig.snapshot("s").is_none() && !rig.path(".dunnage/snapshots/s").exists());
}

#[test]
fn a_copy_that_cannot_be_removed_does_not_keep_the_root_from_being_served() {
    if !needs_root("a_copy_that_cannot_be_removed_does_not_keep_the_root_from_being_served") {
        return;
    }
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    fs::remove_file(rig.path(".dunnage/snapshots/s")).unwrap();
    let job = rig.path(".dunnage/jobs/snapshot.s");
    let chattr = |flag| assert!(Command::new("chattr").arg(flag).arg(&job).status().unwrap().success());
    chattr("+i");
    let opened = dir(rig.temp.path(), json!({})).open(&opening());
    chattr("-i");
    rig.backend = Some(opened.unwrap());
    assert!(rig.find("a").is_some());
    rig.nothing_is_left();
}

/// The host looks first whether there is the volume, and checks that it is what is asked for; then the copy ends.
#[test]
fn a_copy_that_ends_behind_the_look_of_the_host_is_looked_at_again() {
    let rig = Rig::new();
    let volume = rig.create("a").unwrap();
    let content = ContentSource::Volume(volume.clone());
    let made = rig.copy(&cx(), "c", &content).unwrap();
    let source = SourceId::Volume(rig.id(&volume));
    let other = request("c", 1 << 30, 0).holding(source, content).unwrap();
    for again in [other, request("c", 1 << 30, 0)] {
        let error = rig.create_calls().create(&cx(), &again).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Running, "{}", error.report());
    }
    assert_eq!(rig.find("c"), Some(made));
}

#[test]
fn a_folder_that_somebody_put_where_a_copy_was_to_go_is_left_alone() {
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    fs::create_dir(rig.path("snapshots/s")).unwrap();
    fs::write(rig.path("snapshots/s/thesis.tex"), "words").unwrap();
    rig.restart();
    let copying = rig.backend().copying.clone().unwrap();
    until("it fails", || copying.copies().first().and_then(|copy| copy.error.clone()));
    let volume = rig.find("a").unwrap();
    rig.snap(&cx(), "s", &volume).unwrap_err();
    assert_eq!(rig.snapshot("s"), None, "a folder of somebody else is no snapshot");
    assert_eq!(fs::read_to_string(rig.path("snapshots/s/thesis.tex")).unwrap(), "words");
    rig.nothing_is_left();
}

#[test]
fn a_record_that_cannot_be_read_does_not_keep_the_other_volumes_from_being_served() {
    let mut rig = Rig::new();
    cut_off_in_the_middle(&mut rig);
    let record = rig.path(".dunnage/snapshots/s");
    let text = fs::read(&record).unwrap();
    fs::write(&record, "broken").unwrap();
    rig.restart();
    assert!(rig.find("a").is_some());
    rig.backend = None;
    fs::write(&record, text).unwrap();
    rig.restart();
    until("the snapshot is whole", || rig.snapshot("s"));
    rig.nothing_is_left();
}

#[test]
fn data_without_a_record_is_never_taken_for_a_copy() {
    let rig = Rig::new();
    let volume = rig.full("a", 3);
    for path in ["snapshots/s", "volumes/c"] {
        fs::create_dir(rig.path(path)).unwrap();
        fs::write(rig.path(path).join("thesis.tex"), "words").unwrap();
    }
    let clone = rig.copy(&cx(), "c", &ContentSource::Volume(volume.clone()));
    for error in [rig.snap(&cx(), "s", &volume).unwrap_err(), clone.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("restore the record, or move it away"), "{error}");
    }
    assert!(rig.path("snapshots/s/thesis.tex").exists() && rig.path("volumes/c/thesis.tex").exists());
    assert_eq!(rig.volumes().find(&cx(), &VolumeKey::of_name("c")).unwrap(), None);
    rig.nothing_is_left();
}

#[test]
fn a_snapshot_whose_data_is_gone_is_half_deleted() {
    let rig = Rig::new();
    let volume = rig.full("a", 3);
    let snapshot = rig.snap(&cx(), "s", &volume).unwrap();
    assert!(!rig.snapshots().is_half_deleted(&cx(), &snapshot).unwrap());
    fs::remove_dir_all(rig.path("snapshots/s")).unwrap();
    assert!(rig.snapshots().is_half_deleted(&cx(), &snapshot).unwrap());
    rig.snapshots().delete(&cx(), &snapshot).unwrap();
    rig.snap(&cx(), "s", &volume).unwrap();
}
