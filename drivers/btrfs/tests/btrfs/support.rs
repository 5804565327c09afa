//! Roots that clean up behind themselves, and requests.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    Access, AccessMode, Backend, CapacityRange, ContentSource, Context, CreateSnapshot, CreateVolume, Driver,
    Fingerprint, HealthFinding, MountAccess, Opening, Parameters, Result, Snapshot, SnapshotId, SnapshotKey, Source,
    SourceId, SourceRequest, System, Volume, VolumeCapability, VolumeId, VolumeKey, VolumeUsage,
};
use dunnage_driver_btrfs::Btrfs;
use tempfile::{NamedTempFile, TempDir};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const DISK: u64 = 1 << 30;

/// A btrfs of a test's own, mounted.
pub(crate) struct Disk {
    folder: TempDir,
    image: NamedTempFile,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::made_by("mkfs.btrfs", DISK)
    }

    /// One of this size, made by another program.
    pub(crate) fn made_by(mkfs: &str, bytes: u64) -> Self {
        let (folder, image) = (tempfile::tempdir().unwrap(), NamedTempFile::new().unwrap());
        image.as_file().set_len(bytes).unwrap();
        run(mkfs, &["-q", image.path().to_str().unwrap()]);
        let disk = Self { folder, image };
        // With each second, and not each half minute, the kernel cleans up.
        disk.mount("loop,commit=1");
        disk
    }

    /// What its device has at this moment, without what is in the memory of the file system alone.
    fn copy(&self) -> NamedTempFile {
        let image = NamedTempFile::new().unwrap();
        run("cp", &["--sparse=auto", self.image.path().to_str().unwrap(), image.path().to_str().unwrap()]);
        image
    }

    fn replace(&mut self, image: NamedTempFile) {
        assert!(unmount(self.path()));
        self.image = image;
        self.mount("loop,commit=1");
    }

    pub(crate) fn mount(&self, options: &str) {
        assert!(self.try_mount(options), "cannot mount with {options}");
    }

    pub(crate) fn try_mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.image.path()).arg(self.path()).status().unwrap().success()
    }

    /// Changes every block of the device that is `old`, while it is not mounted.
    pub(crate) fn overwrite(&self, old: &[u8; 4096], new: &[u8; 4096]) {
        let (mut changed, mut block) = (0, [0; 4096]);
        for at in (0..DISK).step_by(old.len()) {
            self.image.as_file().read_exact_at(&mut block, at).unwrap();
            if block == *old {
                self.image.as_file().write_all_at(new, at).unwrap();
                changed += 1;
            }
        }
        assert!(changed > 0, "no block is as it is said to be");
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// An opened root that is the top of a disk.
pub(crate) struct Root {
    /// `None` while it is closed; before the disk, so that it goes first.
    calls: Option<Calls>,
    keys: String,
    pub(crate) disk: Disk,
}

impl Root {
    /// A root with these further keys, as JSON: `"quota": "full"`.
    pub(crate) fn new(keys: &str) -> Self {
        Self::on(Disk::new(), keys)
    }

    pub(crate) fn on(disk: Disk, keys: &str) -> Self {
        let mut root = Self { calls: None, keys: keys.into(), disk };
        root.driver().init(&opening()).unwrap();
        root.restart();
        root
    }

    pub(crate) fn driver(&self) -> Btrfs {
        driver(self.path(), &self.keys)
    }

    /// Closes it, so that another process can have it.
    pub(crate) fn close(&mut self) {
        self.calls = None;
    }

    /// Opens it anew, as the next process would.
    pub(crate) fn restart(&mut self) {
        self.close();
        // The threads of the one before let go of its lock when they end.
        self.calls = Some(until("the root can be opened", || self.driver().open(&opening()).ok().map(Calls)));
    }

    /// Opens it anew after a power cut.
    pub(crate) fn cut_power(&mut self) {
        // Not closed before: nothing may reach the disk that would not.
        let image = self.disk.copy();
        self.close();
        self.disk.replace(image);
        self.restart();
    }

    /// The same root with other keys.
    pub(crate) fn configured(mut self, keys: &str) -> Self {
        self.keys = keys.into();
        self.restart();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path().join("volumes").join(name)
    }

    pub(crate) fn snapshot_data(&self, name: &str) -> PathBuf {
        self.path().join("snapshots").join(name)
    }

    /// Ends the transaction, with which the kernel brings its counts up to date.
    pub(crate) fn sync(&self) {
        rustix::fs::syncfs(std::fs::File::open(self.path()).unwrap()).unwrap();
    }
}

impl Deref for Root {
    type Target = Calls;

    fn deref(&self) -> &Calls {
        self.calls.as_ref().unwrap()
    }
}

/// The calls of a backend, as the host makes them.
pub(crate) struct Calls(pub(crate) Backend);

impl Calls {
    pub(crate) fn create(&self, name: &str, bytes: u64) -> Result<Volume> {
        self.create_as(request(name, bytes))
    }

    pub(crate) fn create_as(&self, request: CreateVolume) -> Result<Volume> {
        self.0.create.as_ref().unwrap().create(&cx(), &request)
    }

    /// A volume of the snapshot's content.
    pub(crate) fn restore(&self, name: &str, snapshot: &Snapshot, bytes: u64) -> Result<Volume> {
        self.restore_as(request(name, bytes), snapshot)
    }

    pub(crate) fn restore_as(&self, request: CreateVolume, snapshot: &Snapshot) -> Result<Volume> {
        let (key, generation) = (snapshot.key.clone(), snapshot.generation.clone());
        let id = SnapshotId { instance: self.0.instance.clone(), key, generation };
        let content = ContentSource::Snapshot(snapshot.clone());
        self.create_as(request.holding(SourceId::Snapshot(id), content)?)
    }

    /// A volume of the content of another.
    pub(crate) fn clone_of(&self, name: &str, volume: &Volume, bytes: u64) -> Result<Volume> {
        let content = ContentSource::Volume(volume.clone());
        self.create_as(request(name, bytes).holding(SourceId::Volume(self.id(volume)), content)?)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Volume> {
        self.0.volumes.as_ref().unwrap().find(&cx(), &VolumeKey::of_name(name)).unwrap()
    }

    pub(crate) fn delete(&self, volume: &Volume) -> Result<()> {
        self.0.create.as_ref().unwrap().delete(&cx(), volume)
    }

    pub(crate) fn is_half_deleted(&self, volume: &Volume) -> bool {
        self.0.create.as_ref().unwrap().is_half_deleted(&cx(), volume).unwrap()
    }

    pub(crate) fn expand(&self, volume: &Volume, bytes: u64) -> Result<u64> {
        let range = CapacityRange::new(bytes as i64, 0).unwrap();
        let expanded = self.0.expand.as_ref().unwrap().expand(&cx(), volume, range)?;
        assert!(!expanded.node_expansion_required);
        Ok(expanded.capacity.get())
    }

    pub(crate) fn modify(&self, volume: &Volume, pairs: &[(&str, &str)]) -> Result<()> {
        self.0.modify.as_ref().unwrap().0.modify(&cx(), volume, &parameters(pairs))
    }

    pub(crate) fn health(&self, volume: &Volume) -> Vec<HealthFinding> {
        self.0.health.as_ref().unwrap().health(&cx(), volume).unwrap()
    }

    pub(crate) fn available(&self) -> u64 {
        self.0.room.as_ref().unwrap().capacity(&cx(), &Parameters::default()).unwrap().available.get()
    }

    pub(crate) fn usage(&self, volume: &Volume) -> Option<VolumeUsage> {
        self.0.node.as_ref().unwrap().0.usage(&cx(), &self.id(volume)).unwrap()
    }

    /// Where a pod would find the volume: held open, so that its path works.
    pub(crate) fn source(&self, volume: &Volume) -> Result<(std::os::fd::OwnedFd, PathBuf)> {
        let keep = |_: &_| Ok(());
        let id = self.id(volume);
        match self.0.node.as_ref().unwrap().0.source(&cx(), &SourceRequest::new(&id, &keep))? {
            Source::Directory(source) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", source.directory.as_fd().as_raw_fd()));
                Ok((source.directory, path))
            }
            other => panic!("no directory: {other:?}"),
        }
    }

    pub(crate) fn snapshot(&self, name: &str, volume: &Volume) -> Result<Snapshot> {
        let fingerprint = Fingerprint::of(&BTreeMap::new());
        let request = CreateSnapshot::new(name, self.id(volume), volume.clone(), Parameters::default(), fingerprint);
        self.0.snapshots.as_ref().unwrap().0.create(&cx(), &request)
    }

    pub(crate) fn find_snapshot(&self, name: &str) -> Option<Snapshot> {
        self.0.snapshots.as_ref().unwrap().0.find(&cx(), &SnapshotKey::of_name(name)).unwrap()
    }

    pub(crate) fn delete_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        self.0.snapshots.as_ref().unwrap().0.delete(&cx(), snapshot)
    }

    pub(crate) fn id(&self, volume: &Volume) -> VolumeId {
        let (key, generation) = (volume.key.clone(), volume.generation.clone());
        VolumeId { instance: self.0.instance.clone(), key, generation }
    }
}

/// Whether it could be: what was just closed may hold it for a moment.
pub(crate) fn unmount(folder: &Path) -> bool {
    let gone = Instant::now() + Duration::from_secs(10);
    while rustix::mount::unmount(folder, rustix::mount::UnmountFlags::empty()) == Err(rustix::io::Errno::BUSY) {
        if Instant::now() > gone {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

pub(crate) fn request(name: &str, bytes: u64) -> CreateVolume {
    let access = Access::Mount(MountAccess::default());
    let capability = VolumeCapability { access, mode: AccessMode::SingleNodeWriter };
    let range = CapacityRange::new(bytes as i64, 0).unwrap();
    CreateVolume::new(name, range, vec![capability], Parameters::default(), Fingerprint::of(&BTreeMap::new()))
}

pub(crate) fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    Parameters::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

pub(crate) fn driver(root: &Path, keys: &str) -> Btrfs {
    let comma = if keys.is_empty() { "" } else { "," };
    let root = serde_json::to_string(root).unwrap();
    serde_json::from_str(&format!("{{\"root\": {root}{comma} {keys}}}")).unwrap()
}

/// Runs a program that must succeed; answers what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn btrfs(arguments: &[&str], path: &Path) -> String {
    run("btrfs", &[arguments, &[path.to_str().unwrap()]].concat())
}

/// Writes until the file has this many random bytes, or the error that stopped it.
pub(crate) fn fill(file: &Path, bytes: u64) -> std::io::Result<()> {
    let mut random = std::fs::File::open("/dev/urandom")?;
    let mut file = std::fs::File::create(file)?;
    std::io::copy(&mut std::io::Read::take(&mut random, bytes), &mut file)?;
    file.sync_all()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
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

pub(crate) fn cx() -> Context {
    Context::new(Duration::from_secs(60), Arc::new(System))
}

pub(crate) fn opening() -> Opening {
    Opening::new("copies".parse().unwrap(), "node-1".parse().unwrap(), Arc::new(System))
}
