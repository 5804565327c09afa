//! Snapshots and clones, where the root's file system lets files share their blocks (XFS, btrfs).
//!
//! ```text
//! <root>/snapshots/<key>          the bytes of a snapshot
//! <root>/{images,snapshots}/.copy-<key>   one that is being made
//! ```
//!
//! A copy is made under a name that no key can have and made durable; then its record is written, and last it gets its
//! name. So killed before the record, a copy is nobody's and goes at the next start; killed after it, the next start
//! gives it its name. A file with data in it that has a key for its name and no record stays what it is everywhere: the
//! data of somebody who lost a record.

use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::time::Duration;

use dunnage_driver_api::root::{Folder, Record, SnapshotRecord, SnapshotRecords};
use dunnage_driver_api::{
    Access, Bytes, ContentSource, Context, CreateSnapshot, CreateVolume, Error, InUse, Result, Snapshot, SnapshotKey,
    Snapshots, Volume, VolumeCapability, VolumeId,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::loop_device::{self, LoopDevice};
use crate::store::{Extra, Store};
use crate::{image_file, size};

/// The folder of the snapshots.
pub(crate) const SNAPSHOTS: &str = "snapshots";
const COPY: &str = ".copy-";
/// How long the users of a volume may wait for its copy. To share the blocks of a file takes about a second for a
/// million extents.
const STILL: Duration = Duration::from_secs(10);

/// The snapshots of a root whose files can share blocks.
pub(crate) struct Copies {
    pub(crate) folder: Folder,
    pub(crate) records: SnapshotRecords<Extra>,
}

/// Whether files of this folder can share blocks.
///
/// # Errors
/// Where the file system does not answer.
pub(crate) fn can_share(images: &Folder) -> Result<bool> {
    let nameless = || rustix::fs::openat(images, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, 0o600.into());
    let shared = nameless().and_then(|one| nameless().and_then(|other| rustix::fs::ioctl_ficlone(&one, &other)));
    match shared {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(error) => Err(images.failed("find out whether files share blocks in", "")(error.into())),
    }
}

/// The name that a file has while it is made.
fn unfinished(key: &str) -> String {
    format!("{COPY}{key}")
}

/// Gives every whole copy of `folder` its name, and removes the others. `is_recorded` tells which are whole.
///
/// # Errors
/// Where the folder cannot be read or changed.
pub(crate) fn finish(folder: &Folder, is_recorded: impl Fn(&str) -> Result<bool>) -> Result<()> {
    for entry in folder.entries().map_err(folder.failed("list", ""))? {
        let (name, _) = entry.map_err(folder.failed("list", ""))?;
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(COPY)) else { continue };
        if is_recorded(key)? && !folder.contains(key)? {
            folder.rename(&name, folder, key).map_err(folder.failed("name the copy", key))?;
        } else {
            folder.unlink(&name).map_err(folder.failed("remove the unfinished copy", key))?;
        }
    }
    folder.sync().map_err(folder.failed("sync", ""))
}

impl Store {
    /// The copies of this root.
    fn copies(&self) -> Result<&Copies> {
        self.copies.as_ref().ok_or_else(|| Error::internal("the root's file system shares no blocks"))
    }

    /// Makes a volume that holds what `content` holds.
    pub(crate) fn create_from(&self, cx: &Context, request: &CreateVolume, content: &ContentSource) -> Result<Volume> {
        let key = request.key.as_str();
        let extra = self.extra_of(content)?;
        fits(&request.capabilities, &extra)?;
        let size = size::choose(request.capacity, &request.capabilities, extra.fs_type)?;
        let volume = request.volume(size)?;
        image_file::clear(&self.images, &request.key)?;
        let _room = self.reserve_volume(size, size)?;
        let made = self.copy(cx, content, &self.images, key).and_then(|copy| {
            image_file::grow(&copy, size.get(), self.config.allocation)?;
            copy.sync_all().map_err(self.images.failed("sync", key))?;
            self.images.sync().map_err(self.images.failed("sync", ""))?;
            self.records.put(&Record { volume: volume.clone(), extra })?;
            name_it(&self.images, key)
        });
        // Where the record is there, its copy is whole: it is named at the next start, or removed with its record.
        if made.is_err() && matches!(self.records.get(&request.key), Ok(None)) {
            let _ = self.images.unlink(unfinished(key));
        }
        made.map(|()| volume).map_err(|error| error.during("copy the image").with("volume", key))
    }

    fn extra_of(&self, content: &ContentSource) -> Result<Extra> {
        let (extra, name) = match content {
            ContentSource::Volume(volume) => (self.records.get(&volume.key)?.map(|record| record.extra), &volume.name),
            ContentSource::Snapshot(snapshot) => {
                (self.copies()?.records.get(&snapshot.key)?.map(|record| record.extra), &snapshot.name)
            }
        };
        extra.ok_or_else(|| Error::not_found(format!("what was to be copied, {name:?}, is gone")))
    }

    /// Copies the bytes of `content` into a new file of `folder` that has no name of its own yet; durable but for the
    /// name.
    fn copy(&self, cx: &Context, content: &ContentSource, folder: &Folder, key: &str) -> Result<File> {
        let name = unfinished(key);
        match folder.unlink(&name) {
            Err(error) if error.kind() != NotFound => return Err(folder.failed("remove", &name)(error)),
            _ => {}
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let copy = folder.open(&name, flags, 0o600).map_err(folder.failed("make", &name))?;
        match content {
            ContentSource::Snapshot(snapshot) => {
                let snapshots = &self.copies()?.folder;
                let key = snapshot.key.as_str();
                let source = snapshots.open(key, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0);
                share(&source.map_err(snapshots.failed("open the snapshot", key))?, &copy)?;
            }
            ContentSource::Volume(volume) => self.copy_live(cx, volume, &copy)?,
        }
        copy.sync_all().map_err(folder.failed("sync", &name))?;
        Ok(copy)
    }

    /// Copies a volume that may be in use: of one moment, with all in it that was flushed before.
    fn copy_live(&self, cx: &Context, volume: &Volume, copy: &File) -> Result<()> {
        let key = volume.key.as_str();
        let image = image_file::open(&self.images, &volume.key).map_err(self.images.failed("open the image", key))?;
        let (instance, generation) = (self.root.instance().clone(), volume.generation.clone());
        let held = cx.hold(&[VolumeId { instance, key: volume.key.clone(), generation }], STILL)?;
        // Nobody holds the writers of a raw device back. What lies in the device's own cache goes to the file first.
        if held.uses() == [InUse::Writable] {
            for device in LoopDevice::find(&self.backing(volume, &image)?)? {
                let path = loop_device::path(device.number);
                let failed = |error| Error::io(format!("cannot flush {}", path.display()), error);
                File::open(&path).and_then(|device| device.sync_all()).map_err(failed)?;
            }
        }
        let shared = share(&image, copy);
        held.let_go()?;
        shared
    }

    fn reserve_snapshot(&self, size: Bytes) -> Result<dunnage_driver_api::root::Reservation> {
        let records = &self.copies()?.records;
        self.room.reserve(&self.folders(), size, size, || self.records.promised(), |fits| records.reserve(size, fits))
    }
}

/// Has `copy`, an empty file, share all blocks of `source`, in one step for all who write to it.
fn share(source: &File, copy: &File) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::ioctl_ficlone(copy, source))
        .map_err(|error| Error::io("cannot share the blocks of the image", error))
}

fn name_it(folder: &Folder, key: &str) -> Result<()> {
    let named = folder.rename(unfinished(key), folder, key).and_then(|()| folder.sync());
    named.map_err(folder.failed("name the copy", key))
}

/// Whether what is copied can be used so.
fn fits(capabilities: &[VolumeCapability], extra: &Extra) -> Result<()> {
    let named = capabilities.iter().find_map(|capability| match &capability.access {
        Access::Mount(mount) => mount.fs_type.filter(|fs_type| *fs_type != extra.fs_type),
        Access::Block => None,
    });
    named.map_or(Ok(()), |named| {
        Err(Error::invalid(format!(
            "the source is of file system {}, and {named} is asked for: a copy has that of its source, name it or none",
            extra.fs_type
        )))
    })
}

impl Snapshots for Store {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        Ok(self.copies()?.records.get(key)?.map(|record| record.snapshot))
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let page = self.copies()?.records.page(after, limit)?;
        Ok(page.into_iter().map(|record| record.snapshot).collect())
    }

    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let Copies { folder, records } = self.copies()?;
        let key = request.key.as_str();
        if folder.contains(key)? {
            return Err(Error::precondition(format!(
                "{} holds data and no snapshot has it: move it away, or restore its record from a backup",
                folder.path().join(key).display()
            )));
        }
        let content = ContentSource::Volume(request.volume.clone());
        let extra = self.extra_of(&content)?;
        let _room = self.reserve_snapshot(request.volume.capacity)?;
        let made = self.copy(cx, &content, folder, key).and_then(|_copy| {
            folder.sync().map_err(folder.failed("sync", ""))?;
            let snapshot = request.snapshot()?;
            records.put(SnapshotRecord { snapshot: snapshot.clone(), extra })?;
            name_it(folder, key).map(|()| snapshot)
        });
        if made.is_err() && matches!(records.get(&request.key), Ok(None)) {
            let _ = folder.unlink(unfinished(key));
        }
        made.map_err(|error| error.during("take the snapshot").with("volume", &request.source))
    }

    fn delete(&self, _: &Context, snapshot: &Snapshot) -> Result<()> {
        let Copies { folder, records } = self.copies()?;
        self.root.trash().discard(folder, snapshot.key.as_str())?;
        records.remove(&snapshot.key)
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        self.copies()?.folder.contains(snapshot.key.as_str()).map(|found| !found)
    }
}
