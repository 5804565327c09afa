//! A volume on a loop device or in a directory, an engine, and the removal of both.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{
    Access, AccessMode, Attachment, Command as ToolCommand, Commands, Context, DeviceSource, DirectoryParent,
    DirectorySource, Error, ErrorKind, FsType, Generation, Identity, InstanceId, MountAccess, Node, Output, Reach,
    ReleaseRecord, Result, Source, SourceRequest, Staging, StagingPath, System, TargetPath, VolumeCapability, VolumeId,
    VolumeKey,
};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::mount::{Audience, Engine, EngineOptions, NodeHalf, PublishVolume, StageVolume, Uses};

pub(super) const MIB: u64 = 1 << 20;

/// Whether these tests can run.
pub(super) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not run: mounting file systems needs root");
        assert_ne!(std::env::var("DUNNAGE_REQUIRE_ALL").as_deref(), Ok("1"), "this test must run here, as root");
    }
    root
}

/// A node half: an image on a loop device, or a directory.
pub(super) struct TestNode {
    pub(super) image: PathBuf,
    pub(super) directory: bool,
    /// What the volume that is a directory lies in, for a driver that tells.
    pub(super) parent: Option<Arc<DirectoryParent>>,
    /// Whether it says that the device was never written to.
    pub(super) blank: bool,
    /// From where its volumes can be used, and the word of the attachment that requests bring.
    pub(super) reach: Reach,
    pub(super) attachment: Option<&'static str>,
    pub(super) sources: AtomicUsize,
    pub(super) releases: AtomicUsize,
}

impl TestNode {
    pub(super) fn attached(&self) -> Option<PathBuf> {
        let name = run("losetup", &["-n", "-O", "NAME", "-j", self.image.to_str().unwrap()]);
        (!name.is_empty()).then(|| name.into())
    }
}

impl TestNode {
    pub(super) fn release(&self, record: &ReleaseRecord) -> Result<()> {
        self.releases.fetch_add(1, Ordering::Relaxed);
        if self.attached() == Some(record.read()?) {
            run("losetup", &["-d", &record.read::<String>()?]);
        }
        // While anybody has it open, even to look at it, a loop device is only marked to be detached.
        let until = Instant::now() + Duration::from_secs(10);
        while self.attached().is_some() {
            assert!(Instant::now() < until, "{} stays attached", self.image.display());
        }
        Ok(())
    }
}

impl Node for TestNode {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        self.sources.fetch_add(1, Ordering::Relaxed);
        if self.directory {
            let directory = File::options().read(true).custom_flags(libc::O_PATH).open(&self.image).unwrap();
            let source = DirectorySource::new(directory.into());
            return Ok(Source::Directory(match &self.parent {
                Some(parent) => source.beneath(parent.clone(), self.image.file_name().unwrap()),
                None => source,
            }));
        }
        if !self.image.exists() {
            return Err(Error::not_found("no such volume"));
        }
        let path =
            self.attached().unwrap_or_else(|| run("losetup", &["-f", "--show", self.image.to_str().unwrap()]).into());
        let release = ReleaseRecord::new(&path)?;
        (request.keep)(&release)?;
        let identity = Identity(self.image.display().to_string());
        let source = DeviceSource::new(File::open(&path).unwrap(), path, identity, release).reading_zero();
        Ok(Source::Device(if self.blank { source.blank() } else { source }))
    }

    fn refresh(&self, _: &Context, record: &ReleaseRecord) -> Result<()> {
        run("losetup", &["-c", &record.read::<String>()?]);
        Ok(())
    }
}

/// A mkfs that writes something and is killed.
pub(super) struct Killed {
    pub(super) image: PathBuf,
    pub(super) leaves: &'static [u8],
}

impl Commands for Killed {
    fn run(&self, command: &ToolCommand) -> Result<Output> {
        if command.arguments() == ["-V"] {
            return System.run(command);
        }
        File::options().write(true).open(&self.image).unwrap().write_all_at(self.leaves, 8192).unwrap();
        Err(Error::internal("killed"))
    }
}

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The same for one that fails while its device is busy.
pub(super) fn run_once_free(program: &str, arguments: &[&str]) {
    let until = Instant::now() + Duration::from_secs(10);
    while !Command::new(program).args(arguments).output().unwrap().status.success() {
        assert!(Instant::now() < until, "{program} {arguments:?} fails");
        std::thread::yield_now();
    }
}

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) node: TestNode,
    pub(super) volume: VolumeId,
    pub(super) folder: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// A new volume of `size`, as an image that reads zero.
    pub(super) fn image(size: u64) -> Self {
        Self::with("volume.img", |path| File::create(path).unwrap().set_len(size).unwrap())
    }

    /// A new volume that is a directory.
    pub(super) fn directory() -> Self {
        let mut rig = Self::with("volume", |path| fs::create_dir(path).unwrap());
        rig.node.directory = true;
        rig.node.parent = Some(parent(&rig.folder));
        rig
    }

    fn with(name: &str, make: impl FnOnce(&Path)) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        make(&folder.join(name));
        Self {
            engine: open(&folder),
            node: TestNode {
                image: folder.join(name),
                directory: false,
                parent: None,
                blank: false,
                reach: Reach::Node,
                attachment: None,
                sources: AtomicUsize::new(0),
                releases: AtomicUsize::new(0),
            },
            volume: VolumeId {
                instance: InstanceId::random().unwrap(),
                key: VolumeKey::of_name("v"),
                generation: Generation::random().unwrap(),
            },
            folder,
            _folder: temporary,
        }
    }

    /// The process is killed and started again.
    pub(super) fn restart(&mut self) {
        self.engine = open(&self.folder);
    }

    pub(super) fn cx(&self) -> Context {
        Context::new(Duration::from_secs(30), Arc::new(System))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn staging(&self, name: &str) -> StagingPath {
        StagingPath::new(self.path(name).to_str().unwrap()).unwrap()
    }

    pub(super) fn target(&self, name: &str) -> TargetPath {
        TargetPath::new(self.path(name).to_str().unwrap()).unwrap()
    }

    fn publish_context(&self) -> BTreeMap<String, String> {
        self.node.attachment.iter().map(|word| (Attachment::WORD.to_owned(), (*word).to_owned())).collect()
    }

    fn half(&self) -> NodeHalf<'_> {
        NodeHalf { node: &self.node, reach: self.node.reach }
    }

    pub(super) fn stage_request(&self, capability: VolumeCapability) -> StageVolume {
        StageVolume {
            volume: self.volume.clone(),
            staging_path: self.staging("staged"),
            capability,
            volume_context: BTreeMap::new(),
            publish_context: self.publish_context(),
        }
    }

    pub(super) fn stage(&self, capability: VolumeCapability) -> Result<()> {
        self.stage_as(&self.cx(), &self.stage_request(capability))
    }

    pub(super) fn stage_as(&self, cx: &Context, request: &StageVolume) -> Result<()> {
        self.engine.stage(cx, self.half(), &|_, record| self.node.release(record), request)
    }

    pub(super) fn unstage(&self) -> Result<()> {
        self.engine.unstage(&self.cx(), &|_, record| self.node.release(record), &self.volume, &self.staging("staged"))
    }

    pub(super) fn publish(&self, target: &str, capability: VolumeCapability, readonly: bool) -> Result<()> {
        let staging = if self.node.directory { Staging::None } else { Staging::Needed };
        let request = PublishVolume {
            volume: self.volume.clone(),
            staging_path: Some(self.staging("staged")),
            target_path: self.target(target),
            capability,
            readonly,
            volume_context: BTreeMap::new(),
            publish_context: self.publish_context(),
        };
        self.engine.publish(&self.cx(), self.half(), staging, &request)
    }

    pub(super) fn unpublish(&self, target: &str) -> Result<()> {
        self.engine.unpublish(&self.volume, &self.target(target))
    }

    pub(super) fn all_uses(&self) -> Result<Vec<Uses>> {
        Engine::uses_in(&self.path("state"))
    }

    /// Lines of the table of mounts for a path, the topmost last.
    pub(super) fn mounts(&self, name: &str) -> Vec<String> {
        let path = self.path(name);
        mount_table().lines().filter(|line| line.split(' ').nth(4) == path.to_str()).map(str::to_owned).collect()
    }

    pub(super) fn write_image(&self, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(&self.node.image).unwrap().write_all_at(bytes, offset).unwrap();
    }

    pub(super) fn read_image(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(&self.node.image).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    /// Mounts something that is not ours.
    pub(super) fn mount_foreign(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        rustix::mount::mount("foreign", self.path(name), "tmpfs", MountFlags::empty(), None).unwrap();
    }

    pub(super) fn unmount(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        // A program that another test has just forked may hold it for a moment.
        while rustix::mount::unmount(self.path(name), UnmountFlags::empty()) == Err(rustix::io::Errno::BUSY) {
            assert!(Instant::now() < until, "{name} stays in use");
            std::thread::yield_now();
        }
    }
}

pub(super) fn parent(folder: &Path) -> Arc<DirectoryParent> {
    Arc::new(DirectoryParent::new(Folder::at(folder).unwrap()))
}

fn open(folder: &Path) -> Engine {
    engine(&folder.join("state"))
}

/// An engine with its records in this folder.
pub(super) fn engine(state: &Path) -> Engine {
    Engine::open(state, EngineOptions { audience: Audience::Process }).unwrap()
}

pub(super) fn mount_table() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

impl Drop for Rig {
    fn drop(&mut self) {
        let table = mount_table();
        for line in table.lines().rev() {
            let path = Path::new(line.split(' ').nth(4).unwrap_or_default());
            if path.starts_with(&self.folder) {
                let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
            }
        }
        if !self.node.directory
            && let Some(device) = self.node.attached()
        {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
    }
}

pub(super) fn mount(mode: AccessMode, fs_type: Option<FsType>, flags: &[&str]) -> VolumeCapability {
    let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    VolumeCapability { access: Access::Mount(MountAccess { fs_type, mount_flags, volume_mount_group: None }), mode }
}

pub(super) fn writer() -> VolumeCapability {
    mount(AccessMode::SingleNodeWriter, None, &[])
}

pub(super) fn raw(mode: AccessMode) -> VolumeCapability {
    VolumeCapability { access: Access::Block, mode }
}

#[track_caller]
pub(super) fn assert_refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.report());
    assert!(error.report().contains(words), "{}", error.report());
}
