//! Copies in the background that are killed, given up or disturbed at the worst moment.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    CapacityRange, ContentSource, Context, Create, CreateVolume, Driver, ErrorKind, Fingerprint, FsType, Parameters,
    Result, Snapshot, SourceId, System, Volume, VolumeKey,
};
use dunnage_testkit::{BadSectors, FuseStore, for_each_operation};
use tempfile::TempDir;

use crate::copies::Copying;
use crate::support::{Calls, MIB, Root, block, cx, is_root, opening, until};

/// More than what is copied between two checkpoints.
const SIZE: u64 = 160 * MIB;

/// A volume `v` on a store of a test's own, which holds the calls that copy it.
struct Slow {
    store: FuseStore,
    calls: Calls,
    volume: Volume,
    folder: TempDir,
}

impl Slow {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = FuseStore::mount(folder.path()).unwrap();
        let calls = open(folder.path());
        let volume = calls.create("v", SIZE).unwrap();
        fill(&folder.path().join("images/v"));
        Self { store, calls, volume, folder }
    }

    /// What a kill of this one leaves, on a new store: the copy of it hangs at `from`.
    fn killed(&self, without: &str, from: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = FuseStore::mount(folder.path()).unwrap();
        as_killed(self.path(), folder.path());
        std::fs::remove_file(folder.path().join(without)).unwrap();
        let inode = folder.path().join("images/v").metadata().unwrap().ino();
        store.hang_reads(BadSectors { inode, from });
        let calls = open(folder.path());
        let slow = Self { store, calls, volume: self.volume.clone(), folder };
        slow.wait_for_the_copy();
        slow
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn hang_at(&self, from: u64) {
        self.store.hang_reads(BadSectors { inode: self.path().join("images/v").metadata().unwrap().ino(), from });
    }

    fn wait_for_the_copy(&self) {
        until("it hangs", || (self.store.held() > 0).then_some(()));
    }

    fn go_on(&self) {
        self.store.hang_reads(None);
    }

    fn create(&self) -> &dyn Create {
        self.calls.0.create.as_ref().unwrap().as_ref()
    }

    fn clone(&self) -> CreateVolume {
        clone(&self.calls, &self.volume, 0)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.go_on();
    }
}

fn clone(calls: &Calls, volume: &Volume, size: u64) -> CreateVolume {
    let source = SourceId::Volume(calls.id(volume));
    let fingerprint = Fingerprint::of(&[("source".to_owned(), format!("{source:?}"))].into());
    let range = CapacityRange::new(size as i64, 0).unwrap();
    let request = CreateVolume::new("c", range, vec![block()], Parameters::default(), fingerprint);
    request.holding(source, ContentSource::Volume(volume.clone())).unwrap()
}

fn fill(path: &Path) {
    let file = File::options().write(true).create(true).truncate(true).open(path).unwrap();
    for at in (0..SIZE).step_by(MIB as usize) {
        let block: Vec<u8> = (0..MIB / 8).flat_map(|word| (at + word + 1).to_le_bytes()).collect();
        file.write_all_at(&block, at).unwrap();
    }
    file.sync_all().unwrap();
}

fn open(path: &Path) -> Calls {
    let driver = serde_json::from_value(serde_json::json!({ "root": path, "overcommit": 9 }));
    let driver: dunnage_driver_image::Image = driver.unwrap();
    Driver::init(&driver, &opening()).unwrap();
    Calls(Driver::open(&driver, &opening()).unwrap())
}

/// Copies all that was written; the source, whose reads hang, is made anew.
fn as_killed(from: &Path, to: &Path) {
    let script = format!("cd {} && tar --exclude ./images/v -cf - . | tar -C {} -xf -", from.display(), to.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    fill(&to.join("images/v"));
}

fn are_same(folder: &Path, one: &str, other: &str) -> bool {
    std::fs::read(folder.join(one)).unwrap() == std::fs::read(folder.join(other)).unwrap()
}

fn wait_until_ready(calls: &Calls, snapshot: &Snapshot) {
    let found = || calls.snapshots().find(&cx(), &snapshot.key).unwrap().filter(|found| found.ready);
    until("it is ready", found);
}

#[test]
fn a_snapshot_begun_anew_is_not_believed_to_be_as_far_as_the_old_one_was() {
    if !is_root() {
        return;
    }
    let first = Slow::new();
    first.hang_at(150 * MIB);
    let snapshot = first.calls.cut("s", &first.volume).unwrap();
    first.wait_for_the_copy();
    // Somebody made room before the next start.
    let second = first.killed("unfinished/snapshots.s", 16 * MIB);
    let killed = tempfile::tempdir().unwrap();
    as_killed(second.path(), killed.path());
    wait_until_ready(&open(killed.path()), &snapshot);
    assert!(are_same(killed.path(), "snapshots/s", "images/v"), "a torn copy is called ready");
}

#[test]
fn a_clone_begun_anew_is_not_believed_to_be_as_far_as_the_old_one_was() {
    if !is_root() {
        return;
    }
    let first = Slow::new();
    first.hang_at(150 * MIB);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| first.create().create(&cx(), &first.clone()));
        first.wait_for_the_copy();
        let second = first.killed("unfinished/images.c", 16 * MIB);
        let killed = tempfile::tempdir().unwrap();
        as_killed(second.path(), killed.path());
        let next = open(killed.path());
        until("it is whole", || next.find("c"));
        assert!(are_same(killed.path(), "images/c", "images/v"), "a torn volume");
        first.go_on();
        // Who waits longer than a call may is told that it goes on.
        let _ = made.join().unwrap();
    });
}

#[test]
fn a_copy_that_was_cut_short_is_begun_anew() {
    if !is_root() {
        return;
    }
    let first = Slow::new();
    first.hang_at(150 * MIB);
    let snapshot = first.calls.cut("s", &first.volume).unwrap();
    first.wait_for_the_copy();
    let killed = tempfile::tempdir().unwrap();
    as_killed(first.path(), killed.path());
    File::options().write(true).open(killed.path().join("unfinished/snapshots.s")).unwrap().set_len(MIB).unwrap();
    wait_until_ready(&open(killed.path()), &snapshot);
    assert!(are_same(killed.path(), "snapshots/s", "images/v"), "a torn copy is called ready");
}

#[test]
fn a_file_that_somebody_put_where_a_copy_was_to_go_is_left_alone() {
    if !is_root() {
        return;
    }
    let slow = Slow::new();
    slow.hang_at(0);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| slow.create().create(&cx(), &slow.clone()));
        slow.wait_for_the_copy();
        std::fs::write(slow.path().join("images/c"), "restored from a backup").unwrap();
        slow.go_on();
        made.join().unwrap().unwrap_err();
    });
    assert_eq!(std::fs::read_to_string(slow.path().join("images/c")).unwrap(), "restored from a backup");
    until("the copy is given up", || {
        let error = slow.create().create(&cx(), &slow.clone()).unwrap_err();
        (error.kind() == ErrorKind::FailedPrecondition).then_some(())
    });
    let jobs = std::fs::read_dir(slow.path().join(".dunnage/jobs")).unwrap().count();
    assert_eq!(jobs, 0, "a copy that was given up leaves no job");
}

/// The host looks first whether there is the volume, and checks that it is what is asked for; then the copy ends.
#[test]
fn a_copy_that_ends_behind_the_look_of_the_host_is_looked_at_again() {
    if !is_root() {
        return;
    }
    for root in [Root::on_ext4("", 128 * MIB), Root::on_new(FsType::Xfs, "", 512 * MIB)] {
        let volume = root.create("v", 8 * MIB).unwrap();
        let larger = clone(&root, &volume, 64 * MIB);
        let create = root.0.create.as_ref().unwrap();
        // All holes, as what a create leaves that was cut off.
        let made = create.create(&cx(), &clone(&root, &volume, 0)).unwrap();
        for again in [create.create(&cx(), &larger), root.create("c", 16 * MIB)] {
            let error = again.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Running, "{}", error.report());
        }
        assert_eq!(root.find("c"), Some(made));
        assert_eq!(root.image("c").metadata().unwrap().len(), 8 * MIB);
    }
}

/// Makes a clone, as a host does that looks first.
fn made(calls: &Calls, cx: &Context, request: &CreateVolume) -> Result<Volume> {
    match calls.0.volumes.as_ref().unwrap().find(cx, &VolumeKey::of_name("c"))? {
        Some(found) => Ok(found),
        None => calls.0.create.as_ref().unwrap().create(cx, request),
    }
}

/// A clone during which an operation fails, and the same again; `first` says how the first call is made.
fn for_each_clone(first: impl Fn(&Calls, &CreateVolume)) {
    if !is_root() {
        return;
    }
    let bytes = vec![7; 1 << 20];
    let hits = for_each_operation(|faults, root| {
        let calls = open(root);
        let volume = calls.create("v", MIB).unwrap();
        std::fs::write(root.join("images/v"), &bytes).unwrap();
        let request = clone(&calls, &volume, 0);
        faults.during(|| first(&calls, &request));
        let clone = until("the repeated call makes it", || made(&calls, &cx(), &request).ok());
        assert!(std::fs::read(root.join("images/c")).unwrap() == bytes, "a torn volume");
        assert_eq!(calls.expand(&clone, 2 * MIB).unwrap(), 2 * MIB);
        let copying = calls.0.copying.as_ref().unwrap();
        until("the job is gone", || copying.copies().is_empty().then_some(()));
        assert_eq!(calls.find("c").unwrap().capacity.get(), 2 * MIB, "the record has forgotten that the volume grew");
    });
    assert!(hits > 50, "{hits}");
}

#[test]
fn a_clone_can_be_repeated_and_grown_wherever_the_disk_fails() {
    for_each_clone(|calls, request| drop(made(calls, &cx(), request)));
}

#[test]
fn a_clone_that_nobody_waited_for_can_be_repeated_and_grown_wherever_the_disk_fails() {
    for_each_clone(|calls, request| {
        let soon = Context::new(Duration::from_millis(101), Arc::new(System));
        let _ = made(calls, &soon, request);
        // The fault is to come to the copy, which goes on by itself.
        let copying = calls.0.copying.as_ref().unwrap();
        let late = Instant::now() + Duration::from_secs(1);
        while copying.copies().first().is_some_and(|copy| copy.error.is_none()) && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
