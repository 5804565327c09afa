//! Growing what is on a device to the device's size, while it is in use.

use std::os::fd::{AsFd, OwnedFd};

use dunnage_driver_api::{Bytes, CapacityRange, Context, Error, ErrorKind, FsType, Node, Result, VolumeId};
use rustix::fs::{Mode, OFlags};

use super::Engine;
use super::place::Place;
use super::record::Device;
use super::sys;

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
        path: &std::path::Path,
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
            let root = Place::find(stage.path.as_path())?
                .and_then(|place| place.open().ok())
                .ok_or_else(|| Error::precondition(format!("{} is not mounted: stage the volume again", stage.path)))?;
            if mounted.read_only {
                return Err(Error::precondition(format!(
                    "volume {volume} is mounted read-only here, so that its file system cannot grow: use it writable once"
                )));
            }
            grow(root, mounted.fs_type, size).map_err(|error| error.with("volume", volume))?;
        }
        Ok(Some(size))
    }
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
    .map_err(failed)
}
