//! Roots that clean up behind themselves, and requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    Access, AccessMode, Backend, CapacityRange, Context, CreateVolume, DeviceSource, Driver, Fingerprint, FsType, Init,
    MountAccess, Opening, Parameters, ReleaseRecord, Result, Source, SourceRequest, System, Volume, VolumeCapability,
    VolumeId, VolumeKey,
};
use dunnage_driver_image::Image;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;

/// Whether this process may bind loop devices and mount; says so where it may not.
pub(crate) fn is_root() -> bool {
    if rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists() {
        return true;
    }
    let why = "needs root and the loop driver: loop devices and mounts";
    assert!(std::env::var_os("DUNNAGE_REQUIRE_ALL").is_none(), "cannot run: {why}");
    eprintln!("not run: {why}");
    false
}

/// A root, opened. What is bound to its images is unbound in the end, also after a panic.
pub(crate) struct Root {
    /// `None` while it is closed.
    calls: Option<Calls>,
    keys: String,
    /// Before its folder: dropped first.
    _mount: Option<Mount>,
    folder: TempDir,
}

impl Root {
    /// A root with these further keys, as JSON: `"overcommit": 2`.
    pub(crate) fn new(keys: &str) -> Self {
        Self::open(keys, None, tempfile::tempdir().unwrap())
    }

    /// A root that is a tmpfs of this size.
    pub(crate) fn on_tmpfs(keys: &str, bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Mount::new("tmpfs", folder.path(), "tmpfs", &format!("size={bytes}"));
        Self::open(keys, Some(mount), folder)
    }

    /// A root that is an ext4 of this size; a failed allocation leaves blocks behind there.
    pub(crate) fn on_ext4(keys: &str, bytes: u64) -> Self {
        Self::on_new(FsType::Ext4, keys, bytes)
    }

    /// A root that is a new file system of this kind and size.
    pub(crate) fn on_new(fs_type: FsType, keys: &str, bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(bytes).unwrap();
        run(fs_type.mkfs().program, &["-q", disk.path().to_str().unwrap()]);
        // Dropped when it is mounted: losetup leaves it to go with the mount.
        let device = Foreign::of(disk.path());
        let mount = Mount::new(&device.0, folder.path(), fs_type.as_str(), "");
        Self::open(keys, Some(mount), folder)
    }

    fn open(keys: &str, mount: Option<Mount>, folder: TempDir) -> Self {
        let mut root = Self { calls: None, keys: keys.into(), _mount: mount, folder };
        assert!(matches!(root.driver().init(&opening()), Ok(Init::Created(_))));
        root.restart();
        root
    }

    pub(crate) fn driver(&self) -> Image {
        let comma = if self.keys.is_empty() { "" } else { "," };
        let root = serde_json::to_string(self.folder.path()).unwrap();
        serde_json::from_str(&format!("{{\"root\": {root}{comma} {}}}", self.keys)).unwrap()
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

    /// The same root with other keys.
    pub(crate) fn configured(mut self, keys: &str) -> Self {
        self.keys = keys.into();
        self.restart();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.path().join("images").join(name)
    }

    pub(crate) fn wait_for_the_trash(&self) {
        let trash = self.path().join(".dunnage/trash");
        until("the trash is empty", || std::fs::read_dir(&trash).unwrap().next().is_none().then_some(()));
    }
}

impl Deref for Root {
    type Target = Calls;

    fn deref(&self) -> &Calls {
        self.calls.as_ref().unwrap()
    }
}

/// By a driver whose root is nowhere: a release needs none.
fn release(cx: &Context, record: &ReleaseRecord) -> Result<()> {
    let nowhere: dunnage_driver_image::Image = serde_json::from_str(r#"{"root": "/nowhere"}"#).unwrap();
    nowhere.release(cx, record)
}

/// The calls of a backend, as the host makes them.
pub(crate) struct Calls(pub(crate) Backend);

impl Calls {
    pub(crate) fn create(&self, name: &str, bytes: u64) -> Result<Volume> {
        self.create_as(name, bytes, block())
    }

    pub(crate) fn create_as(&self, name: &str, bytes: u64, capability: VolumeCapability) -> Result<Volume> {
        let request = CreateVolume::new(
            name,
            CapacityRange::new(bytes as i64, 0).unwrap(),
            vec![capability],
            Parameters::default(),
            Fingerprint::of(&BTreeMap::new()),
        );
        self.0.create.as_ref().unwrap().create(&cx(), &request)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Volume> {
        self.0.volumes.as_ref().unwrap().find(&cx(), &VolumeKey::of_name(name)).unwrap()
    }

    pub(crate) fn delete(&self, volume: &Volume) -> Result<()> {
        self.0.create.as_ref().unwrap().delete(&cx(), volume)
    }

    pub(crate) fn expand(&self, volume: &Volume, bytes: u64) -> Result<u64> {
        let range = CapacityRange::new(bytes as i64, 0).unwrap();
        let expanded = self.0.expand.as_ref().unwrap().expand(&cx(), volume, range)?;
        assert!(expanded.node_expansion_required);
        Ok(expanded.capacity.get())
    }

    pub(crate) fn available(&self) -> u64 {
        self.0.room.as_ref().unwrap().capacity(&cx(), &Parameters::default()).unwrap().available.get()
    }

    pub(crate) fn source(&self, volume: &Volume) -> Result<DeviceSource> {
        self.source_keeping(volume, &Mutex::default())
    }

    /// A source, and in `kept` the records that the host was to keep.
    pub(crate) fn source_keeping(&self, volume: &Volume, kept: &Mutex<Vec<ReleaseRecord>>) -> Result<DeviceSource> {
        let id = self.id(volume);
        let keep = |record: &ReleaseRecord| {
            kept.lock().unwrap().push(record.clone());
            Ok(())
        };
        let (node, _) = self.0.node.as_ref().unwrap();
        match node.source(&cx(), &SourceRequest::new(&id, &keep))? {
            Source::Device(device) => Ok(device),
            other => panic!("no device: {other:?}"),
        }
    }

    pub(crate) fn release(&self, record: &ReleaseRecord) -> Result<()> {
        release(&cx(), record)
    }

    /// Releases what nobody uses any more.
    pub(crate) fn let_go(&self, source: DeviceSource) -> Result<()> {
        drop(source.device);
        self.release(&source.release)
    }

    /// Releases with an answer wanted soon.
    pub(crate) fn release_soon(&self, record: &ReleaseRecord) -> Result<()> {
        let cx = Context::new(Duration::from_millis(20), Arc::new(System));
        release(&cx, record)
    }

    pub(crate) fn refresh(&self, record: &ReleaseRecord) -> Result<()> {
        self.0.node.as_ref().unwrap().0.refresh(&cx(), record)
    }

    pub(crate) fn id(&self, volume: &Volume) -> VolumeId {
        let (key, generation) = (volume.key.clone(), volume.generation.clone());
        VolumeId { instance: self.0.instance.clone(), key, generation }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.calls = None;
        for (device, image) in bound() {
            if image.starts_with(self.folder.path()) {
                let _ = Command::new("losetup").arg("--detach").arg(device).status();
            }
        }
    }
}

/// A mount that goes away in the end.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(source: impl AsRef<Path>, target: &Path, fs_type: &str, options: &str) -> Self {
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(source.as_ref(), target, fs_type, flags, options.as_c_str()).unwrap();
        Self(target.into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let gone = Instant::now() + Duration::from_secs(10);
        while rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::empty()) == Err(rustix::io::Errno::BUSY)
            && Instant::now() < gone
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Another program's loop device.
pub(crate) struct Foreign(pub(crate) PathBuf);

impl Foreign {
    pub(crate) fn of(image: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// The bound loop devices and their files.
pub(crate) fn bound() -> Vec<(PathBuf, PathBuf)> {
    let mut bound = Vec::new();
    for entry in std::fs::read_dir("/sys/block").unwrap() {
        let entry = entry.unwrap();
        if let Ok(image) = std::fs::read_to_string(entry.path().join("loop/backing_file")) {
            bound.push((Path::new("/dev").join(entry.file_name()), image.trim_end().into()));
        }
    }
    bound
}

/// The device of an image, if it has one.
pub(crate) fn device_of(image: &Path) -> Option<PathBuf> {
    bound().into_iter().find(|(_, file)| file == image).map(|(device, _)| device)
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

pub(crate) fn write(device: &Path, bytes: &[u8], offset: u64) {
    let file = File::options().write(true).open(device).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

pub(crate) fn read(device: &Path, length: usize, offset: u64) -> Vec<u8> {
    let mut bytes = vec![1; length];
    File::open(device).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

pub(crate) fn size_of(device: &Path) -> u64 {
    std::io::Seek::seek(&mut File::open(device).unwrap(), std::io::SeekFrom::End(0)).unwrap()
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

pub(crate) fn block() -> VolumeCapability {
    VolumeCapability { access: Access::Block, mode: AccessMode::SingleNodeWriter }
}

pub(crate) fn mount(fs_type: FsType) -> VolumeCapability {
    let access = Access::Mount(MountAccess { fs_type: Some(fs_type), ..Default::default() });
    VolumeCapability { access, mode: AccessMode::SingleNodeWriter }
}

pub(crate) fn cx() -> Context {
    Context::new(Duration::from_secs(60), Arc::new(System))
}

pub(crate) fn opening() -> Opening {
    Opening::new("disks".parse().unwrap(), "node-1".parse().unwrap(), Arc::new(System))
}
