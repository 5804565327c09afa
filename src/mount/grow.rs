//! Growing what is on a device to the device's size, while it is in use.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use dunnage_driver_api::{Bytes, CapacityRange, Context, Error, ErrorKind, FsType, Node, Result, Tool, VolumeId};
use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;

use super::place;
use super::probe::{Probe, probe};
use super::record::Device;
use super::{Engine, sys};

/// Grows an ext4 that is not mounted.
pub(super) const RESIZE2FS: Tool = Tool { program: "resize2fs", package: "e2fsprogs" };

/// Moving metadata takes long on a large file system.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// A file system may leave out what is too small at the end of its device for a group of its own.
const REST: u64 = 1 << 20;

impl Engine {
    /// Makes a grown volume's size visible on this node, and grows its file system to it (CSI NodeExpandVolume). `path`
    /// is where the volume is staged or published. Answers the device's size, or `None` for a volume that has no device
    /// here: there is nothing to grow on the node then.
    ///
    /// # Errors
    /// NotFound where the volume is not at `path`; OutOfRange where the device is smaller than what is required, since
    /// only the controller makes it larger; FailedPrecondition where the file system is mounted read-only.
    pub fn expand(
        &self,
        cx: &Context,
        node: &dyn Node,
        volume: &VolumeId,
        path: &Path,
        capacity: CapacityRange,
    ) -> Result<Option<Bytes>> {
        let record = self.records.load(volume)?;
        self.find_use(&record, path)?;
        let Some(stage) = &record.stage else { return Ok(None) };
        let Some(device) = &stage.device else { return Ok(None) };
        node.refresh(cx, &stage.release)?;
        let size = device.number.size()?;
        if size < capacity.required() {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "the device of volume {volume} has {} bytes on this node, and {} are required: expand the volume \
                     at its controller first",
                    size.get(),
                    capacity.required().get()
                ),
            ));
        }
        if let Some(mounted) = &device.filesystem {
            if mounted.read_only {
                return Err(Error::precondition(format!(
                    "volume {volume} is mounted read-only here, so that its file system cannot grow: use it writable once"
                )));
            }
            if self.could_grow(device)? {
                // Where it is staged, since a target may be read-only.
                let root = place::open_mounted(stage.path.as_path(), mounted.root)?.ok_or_else(|| {
                    Error::precondition(format!("the volume is not mounted at {}: stage it again", stage.path))
                })?;
                grow(root, mounted.fs_type, size).map_err(|error| error.with("volume", volume))?;
            }
        }
        Ok(Some(size))
    }

    /// Whether the superblock on the device leaves room. That of a mounted file system may be late, never ahead.
    fn could_grow(&self, device: &Device) -> Result<bool> {
        let failed = |error: std::io::Error| Error::io(format!("cannot open {}", device.path.display()), error);
        match device.number.open(&device.path, false).map_err(|error| failed(error.into()))? {
            Some(opened) => match probe(&opened.into(), &device.path, device.number.size()?)? {
                Probe::FileSystem(found) => has_room(device, found.size),
                _ => Ok(true),
            },
            None => Err(failed(std::io::ErrorKind::NotFound.into())),
        }
    }
}

/// Whether this process may grow a file system that is mounted.
pub(super) fn can_online(fs_type: FsType) -> bool {
    fs_type != FsType::Ext4
        || rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Grows an ext4 that is mounted nowhere to the size of its device. It has just been checked.
pub(super) fn grow_unmounted(cx: &Context, path: &Path) -> Result<()> {
    let command = RESIZE2FS.command().arg(path).timeout(TIMEOUT);
    cx.commands.run(&command)?.success(&command).map(drop)
}

/// Whether a file system of `size` leaves room on its device that it could use.
pub(super) fn has_room(device: &Device, size: Bytes) -> Result<bool> {
    Ok(device.number.size()?.get() >= size.get().saturating_add(REST))
}

/// Grows a mounted file system, attached or not, to the size of its device.
pub(super) fn grow(mount: impl AsFd, fs_type: FsType, size: Bytes) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("cannot grow the {fs_type} file system"), error);
    let root: OwnedFd =
        rustix::fs::openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
    match fs_type {
        FsType::Ext4 => {
            let block = rustix::fs::fstatfs(&root).map_err(|error| failed(error.into()))?.f_bsize.unsigned_abs();
            sys::ext4_resize(&root, size.get() / block.max(1))
        }
        FsType::Xfs => sys::xfs_grow(&root, size.get()),
        FsType::Btrfs => sys::btrfs_grow(&root),
    }
    .map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) if fs_type == FsType::Ext4 => Error::precondition(
            "the kernel grows a mounted ext4 only for a process with CAP_SYS_RESOURCE: give this process that \
             capability, or unstage the volume, and it grows when it is staged again",
        ),
        _ => failed(error),
    })
}
