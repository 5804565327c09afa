//! Copies on file systems that share no blocks: made in the background, and gone on with.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use dunnage_driver_api::{
    CapacityRange, ContentSource, Context, CreateVolume, Driver, ErrorKind, Fingerprint, Parameters, Result, Snapshot,
    SourceId, Volume,
};
use dunnage_testkit::{BadSectors, FuseStore};

use crate::copies::Copying;
use crate::support::{Calls, MIB, Mount, Root, block, cx, is_root, opening, until};

/// A root with a source of `size` full of bytes, and so little room beside it that a copy of it stops.
struct Narrow {
    root: Root,
    source: Volume,
}

/// How much of a copy is durable at the least when it stops in a [`Narrow`] root.
const KEPT: u64 = 64 * MIB;

impl Narrow {
    fn new() -> Self {
        let root = Root::on_ext4(r#""overcommit": 9"#, 640 * MIB);
        let source = root.create("source", 160 * MIB).unwrap();
        fill(&root.image("source"), 160 * MIB);
        let narrow = Self { root, source };
        let free = narrow.free();
        let foreign = File::create(narrow.foreign()).unwrap();
        let taken = free - 100 * MIB;
        rustix::fs::fallocate(&foreign, rustix::fs::FallocateFlags::empty(), 0, taken).unwrap();
        narrow
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.root.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    fn foreign(&self) -> std::path::PathBuf {
        self.root.path().join("foreign")
    }

    fn make_room(&self) {
        std::fs::remove_file(self.foreign()).unwrap();
    }

    /// Takes a snapshot, which has to stop.
    fn cut(&self) -> Snapshot {
        let snapshot = self.root.cut("s", &self.source).unwrap();
        assert!(!snapshot.ready);
        until("the copy stops", || self.progress().and_then(|(_, error)| error));
        snapshot
    }

    /// How far the one copy is, and why it stopped.
    fn progress(&self) -> Option<(u64, Option<String>)> {
        let copies = self.root.0.copying.as_ref().unwrap().copies();
        copies.first().map(|copy| (copy.done.get(), copy.error.as_ref().map(|error| error.report())))
    }

    fn is_ready(&self, snapshot: &Snapshot) -> Option<()> {
        self.root.snapshots().find(&cx(), &snapshot.key).unwrap().filter(|found| found.ready).map(drop)
    }
}

/// Fills the file with bytes that differ from block to block.
fn fill(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    for at in (0..bytes).step_by(MIB as usize) {
        let block: Vec<u8> = (0..MIB / 8).flat_map(|word| (at + word).to_le_bytes()).collect();
        file.write_all_at(&block, at).unwrap();
    }
    file.sync_all().unwrap();
}

fn clone(name: &str, source: &ContentSource, id: SourceId, size: u64) -> CreateVolume {
    let fingerprint = Fingerprint::of(&[("source".to_owned(), format!("{id:?}"))].into());
    let range = CapacityRange::new(size as i64, 0).unwrap();
    let request = CreateVolume::new(name, range, vec![block()], Parameters::default(), fingerprint);
    request.holding(id, source.clone()).unwrap()
}

fn create(calls: &Calls, cx: &Context, request: &CreateVolume) -> Result<Volume> {
    calls.0.create.as_ref().unwrap().create(cx, request)
}

fn in_a_moment() -> Context {
    Context::new(Duration::from_millis(300), std::sync::Arc::new(dunnage_driver_api::System))
}

fn left(root: &Root) -> Vec<String> {
    let in_folder = |folder: &str| {
        let entries = std::fs::read_dir(root.path().join(folder)).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        entries.map(|entry| format!("{folder}/{}", name(entry))).collect::<Vec<_>>()
    };
    ["images", "snapshots", "unfinished", ".dunnage/jobs", ".dunnage/snapshots"]
        .into_iter()
        .flat_map(in_folder)
        .collect()
}

#[test]
fn a_copy_goes_on_from_where_it_was_durable_after_a_full_disk_and_in_the_next_process() {
    if !is_root() {
        return;
    }
    let mut narrow = Narrow::new();
    let snapshot = narrow.cut();
    let (done, error) = narrow.progress().unwrap();
    assert!(done >= KEPT && error.unwrap().contains("leaves the last"), "{done}");
    let stat = rustix::fs::statvfs(narrow.root.path()).unwrap();
    assert!(narrow.free() >= stat.f_blocks * stat.f_frsize / 100, "volumes in use have room");
    narrow.root.close();
    // What is done already is not copied again: a mark there stays.
    let unfinished = narrow.root.path().join("unfinished/snapshots.s");
    File::options().write(true).open(&unfinished).unwrap().write_all_at(b"a mark", 5).unwrap();
    narrow.make_room();
    narrow.root.restart();
    until("the copy is whole", || narrow.is_ready(&snapshot));
    let copy = File::open(narrow.root.path().join("snapshots/s")).unwrap();
    let (mut found, mut wanted) = (vec![0; 160 << 20], vec![0; 160 << 20]);
    copy.read_exact_at(&mut found, 0).unwrap();
    File::open(narrow.root.image("source")).unwrap().read_exact_at(&mut wanted, 0).unwrap();
    wanted[5..11].copy_from_slice(b"a mark");
    assert!(found == wanted, "it has other bytes than its source");
    until("the job is gone", || narrow.progress().is_none().then_some(()));
    assert_eq!(left(&narrow.root), ["images/source", "snapshots/s", ".dunnage/snapshots/s"]);
}

#[test]
fn while_a_volume_is_copied_it_is_not_brought_to_a_node_nor_deleted_and_may_grow() {
    if !is_root() {
        return;
    }
    let narrow = Narrow::new();
    let snapshot = narrow.cut();
    let root = &narrow.root;
    for refused in [root.source(&narrow.source).map(drop), root.delete(&narrow.source)] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.retry_can_help()), (ErrorKind::FailedPrecondition, true));
        let report = error.report();
        assert!(report.contains("snapshot \"s\"") && report.contains(" % of 160 MiB"), "{report}");
    }
    assert_eq!(root.expand(&narrow.source, 200 * MIB).unwrap(), 200 * MIB);
    narrow.make_room();
    until("the copy is whole", || narrow.is_ready(&snapshot));
    let restored = root.fill("r", 0, ContentSource::Snapshot(snapshot), block()).unwrap();
    assert_eq!(restored.capacity.get(), 160 * MIB);
    let source = root.source(&narrow.source).unwrap();
    root.let_go(source).unwrap();
    root.delete(&narrow.source).unwrap();
}

#[test]
fn a_snapshot_that_is_deleted_while_it_is_copied_leaves_nothing_and_its_name_is_free() {
    if !is_root() {
        return;
    }
    let narrow = Narrow::new();
    let snapshot = narrow.cut();
    let snapshots = narrow.root.snapshots();
    assert!(!snapshots.is_half_deleted(&cx(), &snapshot).unwrap());
    assert_eq!(snapshots.list(&cx(), None, 9).unwrap(), std::slice::from_ref(&snapshot));
    snapshots.delete(&cx(), &snapshot).unwrap();
    snapshots.delete(&cx(), &snapshot).unwrap();
    assert_eq!(left(&narrow.root), ["images/source"]);
    let source = narrow.root.source(&narrow.source).unwrap();
    narrow.root.let_go(source).unwrap();
    narrow.make_room();
    let again = narrow.root.cut("s", &narrow.source).unwrap();
    until("the copy is whole", || narrow.is_ready(&again));
}

#[test]
fn a_volume_in_use_is_not_copied_and_the_refusal_leaves_nothing() {
    if !is_root() {
        return;
    }
    let root = Root::on_ext4("", 128 * MIB);
    let volume = root.create("v", 8 * MIB).unwrap();
    let source = root.source(&volume).unwrap();
    let device = source.path.display().to_string();
    let request = clone("c", &ContentSource::Volume(volume.clone()), SourceId::Volume(root.id(&volume)), 0);
    for refused in [root.cut("s", &volume).map(drop), create(&root, &cx(), &request).map(drop)] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.retry_can_help()), (ErrorKind::FailedPrecondition, true));
        assert!(error.report().contains(&device) && error.report().contains("unstage"), "{}", error.report());
    }
    assert_eq!(left(&root), ["images/v"]);
    root.let_go(source).unwrap();
    assert!(root.cut("s", &volume).unwrap().ready);
    create(&root, &cx(), &request).unwrap();
}

#[test]
fn a_volume_that_is_being_copied_is_not_there_and_the_same_call_waits_for_it() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FuseStore::mount(folder.path()).unwrap();
    let (calls, volume) = fuse_root(folder.path());
    let content = ContentSource::Volume(volume.clone());
    let request = clone("c", &content, SourceId::Volume(calls.id(&volume)), 0);
    let bad = BadSectors { inode: folder.path().join("images/v").metadata().unwrap().ino(), from: 0 };
    std::thread::scope(|scope| {
        // Its first call comes to the place where the store hangs; so does every other that asks the store.
        let copying = calls.0.copying.as_ref().unwrap();
        store.hang_reads(bad);
        let first = scope.spawn(|| create(&calls, &cx(), &request));
        until("it is being copied", || (!copying.copies().is_empty()).then_some(()));
        assert!(calls.find("c").is_none());
        let error = create(&calls, &in_a_moment(), &request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Running, "{}", error.report());
        let (mut differs, mut empty) = (request.clone(), request.clone());
        differs.fingerprint = Fingerprint::of(&Default::default());
        (empty.source, empty.content) = (None, None);
        let larger = clone("c", &content, SourceId::Volume(calls.id(&volume)), 64 * MIB);
        for other in [larger, differs, empty] {
            let error = create(&calls, &cx(), &other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.report());
        }
        store.hang_reads(None);
        let made = first.join().unwrap().unwrap();
        assert_eq!(calls.find("c"), Some(made));
    });
    let bytes = std::fs::read(folder.path().join("images/c")).unwrap();
    assert_eq!((bytes.len() as u64, &bytes[..4]), (8 * MIB, &[7; 4][..]));
}

#[test]
fn a_source_that_cannot_be_read_fails_a_clone_for_good_and_a_snapshot_until_it_can() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FuseStore::mount(folder.path()).unwrap();
    let (calls, volume) = fuse_root(folder.path());
    let bad = BadSectors { inode: folder.path().join("images/v").metadata().unwrap().ino(), from: 5 * MIB };
    store.fail_reads(bad);
    let request = clone("c", &ContentSource::Volume(volume.clone()), SourceId::Volume(calls.id(&volume)), 0);
    let error = create(&calls, &cx(), &request).unwrap_err();
    let read = |report: &str| report.contains("cannot read what is copied") && report.contains("os error 5");
    assert!(error.kind() == ErrorKind::Internal && read(&error.report()), "{}", error.report());
    let is_empty = |name: &str| std::fs::read_dir(folder.path().join(name)).unwrap().next().is_none();
    assert!(is_empty("unfinished") && is_empty(".dunnage/jobs") && calls.find("c").is_none());
    assert!(!folder.path().join("images/c").exists());

    let snapshot = calls.cut("s", &volume).unwrap();
    assert!(!snapshot.ready);
    let copying = calls.0.copying.as_ref().unwrap();
    until("it has failed", || copying.copies().first().and_then(|copy| copy.error.clone()));
    assert!(copying.failed_attempts() >= 1);
    store.fail_reads(None);
    let found = || calls.snapshots().find(&cx(), &snapshot.key).unwrap().filter(|found| found.ready);
    assert_eq!(until("it is ready", found).generation, snapshot.generation);
    create(&calls, &cx(), &request).unwrap();
}

/// A root on a file system of a test's own, and a volume in it that holds bytes.
fn fuse_root(path: &Path) -> (Calls, Volume) {
    let driver = serde_json::json!({ "root": path });
    let driver: dunnage_driver_image::Image = serde_json::from_value(driver).unwrap();
    driver.init(&opening()).unwrap();
    let calls = Calls(driver.open(&opening()).unwrap());
    let volume = calls.create("v", 8 * MIB).unwrap();
    std::fs::write(path.join("images/v"), vec![7; 8 << 20]).unwrap();
    (calls, volume)
}

#[test]
fn a_snapshot_that_a_volume_is_copied_from_is_not_deleted() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FuseStore::mount(folder.path()).unwrap();
    let (calls, volume) = fuse_root(folder.path());
    let snapshot = calls.cut("s", &volume).unwrap();
    let found = || calls.snapshots().find(&cx(), &snapshot.key).unwrap().filter(|found| found.ready);
    let snapshot = until("it is ready", found);
    let id = dunnage_driver_api::SnapshotId {
        instance: calls.0.instance.clone(),
        key: snapshot.key.clone(),
        generation: snapshot.generation.clone(),
    };
    let request = clone("r", &ContentSource::Snapshot(snapshot.clone()), SourceId::Snapshot(id), 0);
    store.hang_reads(BadSectors { inode: folder.path().join("snapshots/s").metadata().unwrap().ino(), from: 0 });
    std::thread::scope(|scope| {
        let made = scope.spawn(|| create(&calls, &cx(), &request));
        until("it is being copied", || (store.held() > 0).then_some(()));
        let refused = calls.snapshots().delete(&cx(), &snapshot);
        store.hang_reads(None);
        let error = refused.unwrap_err();
        assert!(error.kind() == ErrorKind::FailedPrecondition && error.report().contains("volume \"r\""), "{error}");
        made.join().unwrap().unwrap();
    });
    calls.snapshots().delete(&cx(), &snapshot).unwrap();
}

#[test]
fn a_copy_has_the_holes_of_its_source_and_one_that_is_preallocated_all_its_blocks() {
    if !is_root() {
        return;
    }
    let root = Root::on_ext4("", 512 * MIB);
    let volume = root.create("v", 64 * MIB).unwrap();
    let file = File::options().write(true).open(root.image("v")).unwrap();
    for at in [0, 9 * MIB + 4096, 63 * MIB] {
        file.write_all_at(&[7; 8192], at).unwrap();
    }
    file.sync_all().unwrap();
    // Allocated and never written: that is a hole of the copy.
    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, keep, 20 * MIB, 10 * MIB).unwrap();
    drop(file);
    let snapshot = root.cut("s", &volume).unwrap();
    let blocks = |path: &str| root.path().join(path).metadata().unwrap().blocks() * 512;
    assert!(snapshot.ready && blocks("snapshots/s") < MIB, "{}", blocks("snapshots/s"));
    assert!(std::fs::read(root.path().join("snapshots/s")).unwrap() == std::fs::read(root.image("v")).unwrap());
    let root = root.configured(r#""allocation": "preallocated""#);
    let content = ContentSource::Snapshot(snapshot);
    root.fill("r", 96 * MIB, content, block()).unwrap();
    let stat = root.image("r").metadata().unwrap();
    assert!(stat.len() == 96 * MIB && stat.blocks() * 512 >= 96 * MIB, "{stat:?}");
}

#[test]
fn what_is_promised_to_a_copy_is_counted_once_while_it_is_made() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Of a size of its own: others use the disk of the folder.
    let _disk = Mount::new("tmpfs", folder.path(), "tmpfs", "size=128M");
    let store = FuseStore::mount(folder.path()).unwrap();
    let (calls, volume) = fuse_root(folder.path());
    let request = clone("c", &ContentSource::Volume(volume.clone()), SourceId::Volume(calls.id(&volume)), 0);
    let bad = BadSectors { inode: folder.path().join("images/v").metadata().unwrap().ino(), from: 0 };
    std::thread::scope(|scope| {
        let takes_one = |before: u64| (before - calls.available()).abs_diff(8 * MIB) < MIB;
        let before = calls.available();
        store.hang_reads(bad);
        let made = scope.spawn(|| create(&calls, &cx(), &request));
        until("the volume is being copied", || (store.held() > 0).then_some(()));
        let clone_takes_one = takes_one(before);
        store.hang_reads(None);
        made.join().unwrap().unwrap();
        let before = calls.available();
        store.hang_reads(bad);
        let cut = scope.spawn(|| calls.cut("s", &volume));
        until("the snapshot is being copied", || (store.held() > 0).then_some(()));
        let snapshot_takes_one = takes_one(before);
        store.hang_reads(None);
        cut.join().unwrap().unwrap();
        assert_eq!((clone_takes_one, snapshot_takes_one), (true, true));
    });
}

#[test]
fn a_clone_that_finds_no_room_is_given_up() {
    if !is_root() {
        return;
    }
    let narrow = Narrow::new();
    let source = SourceId::Volume(narrow.root.id(&narrow.source));
    let request = clone("c", &ContentSource::Volume(narrow.source.clone()), source, 0);
    let mut refused = create(&narrow.root, &cx(), &request).unwrap_err();
    while refused.kind() == ErrorKind::Running {
        refused = create(&narrow.root, &cx(), &request).unwrap_err();
    }
    assert_eq!(refused.kind(), ErrorKind::ResourceExhausted, "{}", refused.report());
    assert_eq!(left(&narrow.root), ["images/source"]);
}

#[test]
fn a_preallocated_clone_leaves_the_last_of_the_disk_to_volumes_in_use() {
    if !is_root() {
        return;
    }
    let root = Root::on_ext4(r#""overcommit": 9, "allocation": "preallocated""#, 640 * MIB);
    let source = root.create("source", 16 * MIB).unwrap();
    let stat = rustix::fs::statvfs(root.path()).unwrap();
    // All that is free now, but less than what is to be left.
    let size = stat.f_bavail * stat.f_frsize - 4 * MIB;
    let request = clone("c", &ContentSource::Volume(source.clone()), SourceId::Volume(root.id(&source)), size);
    let error = create(&root, &cx(), &request).unwrap_err();
    assert!(error.report().contains("leaves the last"), "{}", error.report());
    assert_eq!(left(&root), ["images/source"]);
}

#[test]
fn a_record_that_cannot_be_read_does_not_keep_the_other_volumes_from_being_served() {
    if !is_root() {
        return;
    }
    let mut narrow = Narrow::new();
    narrow.cut();
    let record = narrow.root.path().join(".dunnage/snapshots/s");
    let text = std::fs::read(&record).unwrap();
    narrow.root.close();
    std::fs::write(&record, "broken").unwrap();
    narrow.root.restart();
    assert!(narrow.root.find("source").is_some());
    assert!(narrow.progress().is_some(), "what nobody can tell about stays");
    narrow.root.close();
    std::fs::write(&record, text).unwrap();
    narrow.make_room();
    narrow.root.restart();
    let key = dunnage_driver_api::SnapshotKey::of_name("s");
    let found = || narrow.root.snapshots().find(&cx(), &key).unwrap().filter(|found| found.ready);
    until("the copy is whole", found);
}

#[test]
fn a_snapshot_whose_removal_fails_halfway_holds_its_source_no_longer() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FuseStore::mount(folder.path()).unwrap();
    let (calls, volume) = fuse_root(folder.path());
    store.fail_reads(BadSectors { inode: folder.path().join("images/v").metadata().unwrap().ino(), from: 0 });
    let snapshot = calls.cut("s", &volume).unwrap();
    let copying = calls.0.copying.as_ref().unwrap();
    until("it has failed", || copying.copies().first().and_then(|copy| copy.error.clone()));
    store.fail_folder_syncs(true);
    calls.snapshots().delete(&cx(), &snapshot).unwrap_err();
    store.fail_folder_syncs(false);
    until("the job is gone", || copying.copies().is_empty().then_some(()));
    assert_eq!(calls.snapshots().find(&cx(), &snapshot.key).unwrap(), None);
    assert!(std::fs::read_dir(folder.path().join("unfinished")).unwrap().next().is_none());
    calls.delete(&volume).unwrap();
}

#[test]
fn a_clone_killed_before_it_looked_whether_its_source_is_used_is_not_gone_on_with_while_it_is() {
    if !is_root() {
        return;
    }
    let mut narrow = Narrow::new();
    let snapshot = narrow.cut();
    let text = std::fs::read_to_string(narrow.root.path().join(".dunnage/jobs/snapshot.s")).unwrap();
    narrow.root.snapshots().delete(&cx(), &snapshot).unwrap();
    let (done, _) = text.split_once("\"done\":").unwrap().1.split_once(',').unwrap();
    let volume = serde_json::to_string(&dunnage_driver_api::Volume::new(
        dunnage_driver_api::VolumeKey::of_name("c"),
        snapshot.generation.clone(),
        narrow.source.capacity,
    ));
    let target = text.split_once("\"target\":").unwrap().1.split_once(",\"source\":").unwrap().0.to_owned();
    let text = text.replace(&format!("\"done\":{done}"), "\"done\":0");
    let text = text.replace(&target, &format!("{{\"volume\":{}}}", volume.unwrap()));
    let source = narrow.root.source(&narrow.source).unwrap();
    narrow.root.close();
    std::fs::write(narrow.root.path().join(".dunnage/jobs/volume.c"), text).unwrap();
    narrow.root.restart();
    assert!(narrow.progress().is_none());
    assert_eq!(left(&narrow.root), ["images/source"]);
    narrow.root.let_go(source).unwrap();
}
