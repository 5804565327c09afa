//! Snapshots and clones, where the root's file system lets files share their blocks (XFS, btrfs).
//!
//! ```text
//! <root>/snapshots/<key>                       the bytes of a snapshot
//! <root>/unfinished/{images,snapshots}.<key>   a copy that is being made
//! ```
//!
//! A copy is made in a folder of its own and made durable; then its record is written, and last it is moved to where the
//! record's bytes are looked for. So killed before the record, a copy is nobody's and goes at the next start; killed after
//! it, the next start moves it. A file with data in it that has a key for its name and no record stays what it is everywhere: the
//! data of somebody who lost a record.

use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::time::Duration;

use dunnage_driver_api::root::{Folder, GroupRecords, Record, SnapshotRecord, SnapshotRecords};
use dunnage_driver_api::{
    Access, Bytes, ContentSource, Context, CreateSnapshot, CreateVolume, Error, InUse, Result, Snapshot, SnapshotKey,
    Snapshots, Volume, VolumeCapability, VolumeId,
};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use crate::loop_device::{self, LoopDevice};
use crate::store::{Extra, IMAGES, Store};
use crate::{image_file, size};

/// The folder of the snapshots.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// The folder of the copies that are being made.
pub(crate) const UNFINISHED: &str = "unfinished";
/// How long the users of a volume may wait for its copy. To share the blocks of a file takes about a second for a
/// million extents.
pub(crate) const STILL: Duration = Duration::from_secs(10);

/// The snapshots of a root whose files can share blocks.
pub(crate) struct Copies {
    pub(crate) folder: Folder,
    pub(crate) unfinished: Folder,
    pub(crate) records: SnapshotRecords<Extra>,
    pub(crate) groups: GroupRecords,
}

/// Whether files of this folder can share blocks; `before` is whether they could when there was room to try it.
///
/// # Errors
/// Where the file system does not answer.
pub(crate) fn can_share(images: &Folder, before: bool) -> Result<bool> {
    let nameless = || rustix::fs::openat(images, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, 0o600.into());
    let shared = nameless().and_then(|one| nameless().and_then(|other| rustix::fs::ioctl_ficlone(&one, &other)));
    match shared {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => Ok(false),
        // A disk that is full tells nothing: it is what it was.
        Err(Errno::NOSPC | Errno::DQUOT) => Ok(before),
        Err(error) => Err(images.failed("find out whether files share blocks in", "")(error.into())),
    }
}

/// Where a copy goes when it is whole.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    folder: &'a Folder,
    /// The name of that folder.
    kind: &'static str,
    key: &'a str,
}

impl Place<'_> {
    /// The name of the copy while it is made.
    fn unfinished(&self) -> String {
        format!("{}.{}", self.kind, self.key)
    }
}

impl Store {
    /// The copies of this root.
    pub(crate) fn copies(&self) -> Result<&Copies> {
        self.copies.as_ref().ok_or_else(|| Error::internal("the root's file system shares no blocks"))
    }

    /// Moves every whole copy to its place, and removes the others.
    ///
    /// # Errors
    /// Where the folders cannot be read or changed.
    pub(crate) fn finish_copies(&self) -> Result<()> {
        let Some(Copies { unfinished, .. }) = &self.copies else { return Ok(()) };
        for entry in unfinished.entries().map_err(unfinished.failed("list", ""))? {
            let (name, _) = entry.map_err(unfinished.failed("list", ""))?;
            match name.to_str().and_then(|name| name.split_once('.')) {
                Some((kind, key)) if self.is_whole(kind, key)? => self.put_in_place(self.place(kind, key)?)?,
                _ => unfinished.unlink(&name).map_err(unfinished.failed("remove", &name))?,
            }
        }
        Ok(())
    }

    /// Whether a copy has its record, and is not in its place.
    fn is_whole(&self, kind: &str, key: &str) -> Result<bool> {
        let recorded = match kind {
            IMAGES => key.parse().map_or(Ok(None), |key| self.records.get(&key))?.is_some(),
            _ => key.parse().map_or(Ok(None), |key| self.copies()?.records.get(&key))?.is_some(),
        };
        Ok(recorded && !self.place(kind, key)?.folder.contains(key)?)
    }

    pub(crate) fn place<'a>(&'a self, kind: &str, key: &'a str) -> Result<Place<'a>> {
        Ok(match kind {
            IMAGES => Place { folder: &self.images, kind: IMAGES, key },
            _ => Place { folder: &self.copies()?.folder, kind: SNAPSHOTS, key },
        })
    }

    pub(crate) fn put_in_place(&self, place: Place<'_>) -> Result<()> {
        let (unfinished, folder) = (&self.copies()?.unfinished, place.folder);
        // Nothing that has this name is ever written over: where a record has its bytes they are not moved here.
        let flags = RenameFlags::NOREPLACE;
        let moved = rustix::fs::renameat_with(unfinished, place.unfinished(), folder, place.key, flags);
        let moved = moved.map_err(std::io::Error::from).and_then(|()| folder.sync());
        moved.map_err(folder.failed("put the copy in its place", place.key))
    }

    /// Makes a volume that holds what `content` holds.
    pub(crate) fn create_from(&self, cx: &Context, request: &CreateVolume, content: &ContentSource) -> Result<Volume> {
        let key = request.key.as_str();
        let extra = self.extra_of(content)?;
        fits(&request.capabilities, &extra)?;
        let size = size::choose(request.capacity, &request.capabilities, extra.fs_type)?;
        let volume = request.volume(size)?;
        let _making = self.records.making(&request.key);
        image_file::clear(&self.images, &request.key)?;
        let _room = self.reserve_volume(size, size)?;
        let place = self.place(IMAGES, key)?;
        let put = |copy: &File| {
            image_file::grow(copy, size.get(), self.config.allocation)?;
            self.make_durable(copy, place)?;
            self.records.put(&Record { volume: volume.clone(), extra })
        };
        let recorded = || self.records.get(&request.key).map(|record| record.is_some());
        self.make(cx, content, place, put, recorded)?;
        Ok(volume)
    }

    /// Copies `content`, has `put` make the copy durable and write its record, and moves it to its place. After an error
    /// nothing is left of what has no record.
    fn make(
        &self,
        cx: &Context,
        content: &ContentSource,
        place: Place<'_>,
        put: impl FnOnce(&File) -> Result<()>,
        is_recorded: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        let made = self.copy(cx, content, place).and_then(|copy| put(&copy)).and_then(|()| self.put_in_place(place));
        // Where the record is there, the copy is whole: it is moved at the next start, or removed with its record.
        if made.is_err() && matches!(is_recorded(), Ok(false)) {
            let _ = self.copies()?.unfinished.unlink(place.unfinished());
        }
        made.map_err(|error| error.during("copy the image").with("to", place.unfinished()))
    }

    pub(crate) fn make_durable(&self, copy: &File, place: Place<'_>) -> Result<()> {
        let unfinished = &self.copies()?.unfinished;
        copy.sync_all().and_then(|()| unfinished.sync()).map_err(unfinished.failed("sync", place.unfinished()))
    }

    pub(crate) fn extra_of(&self, content: &ContentSource) -> Result<Extra> {
        let (extra, name) = match content {
            ContentSource::Volume(volume) => (self.records.get(&volume.key)?.map(|record| record.extra), &volume.name),
            ContentSource::Snapshot(snapshot) => {
                (self.copies()?.records.get(&snapshot.key)?.map(|record| record.extra), &snapshot.name)
            }
        };
        extra.ok_or_else(|| Error::not_found(format!("what was to be copied, {name:?}, is gone")))
    }

    /// Removes what an attempt that was cut off left among the unfinished.
    pub(crate) fn remove_unfinished(&self, place: Place<'_>) -> Result<()> {
        let (unfinished, name) = (&self.copies()?.unfinished, place.unfinished());
        match unfinished.unlink(&name) {
            Err(error) if error.kind() != NotFound => Err(unfinished.failed("remove", &name)(error)),
            _ => Ok(()),
        }
    }

    /// A new file among the unfinished.
    pub(crate) fn begin(&self, place: Place<'_>) -> Result<File> {
        self.remove_unfinished(place)?;
        let (unfinished, name) = (&self.copies()?.unfinished, place.unfinished());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        unfinished.open(&name, flags, 0o600).map_err(unfinished.failed("make", &name))
    }

    /// Copies the bytes of `content` into a new file among the unfinished.
    fn copy(&self, cx: &Context, content: &ContentSource, place: Place<'_>) -> Result<File> {
        let copy = self.begin(place)?;
        match content {
            ContentSource::Snapshot(snapshot) => {
                let snapshots = &self.copies()?.folder;
                let key = snapshot.key.as_str();
                let source = snapshots.open(key, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0);
                share(&source.map_err(snapshots.failed("open the snapshot", key))?, &copy)?;
            }
            ContentSource::Volume(volume) => self.copy_live(cx, volume, &copy)?,
        }
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
        share(&image, copy).and(held.let_go())
    }

    pub(crate) fn reserve_snapshot(&self, size: Bytes) -> Result<dunnage_driver_api::root::Reservation> {
        let records = &self.copies()?.records;
        self.room.reserve(&self.folders(), size, size, || self.records.promised(), |fits| records.reserve(size, fits))
    }
}

/// That nobody's data has the name of a snapshot that is to be taken.
pub(crate) fn refuse_data(folder: &Folder, key: &str) -> Result<()> {
    if folder.contains(key)? {
        return Err(Error::precondition(format!(
            "{} holds data and no snapshot has it: move it away, or restore its record from a backup",
            folder.path().join(key).display()
        )));
    }
    Ok(())
}

/// Has `copy`, an empty file, share all blocks of `source`, in one step for all who write to it.
pub(crate) fn share(source: &File, copy: &File) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::ioctl_ficlone(copy, source))
        .map_err(|error| Error::io("cannot share the blocks of the image", error))
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
        match self.copies()?.records.get(key)? {
            Some(record) if self.is_there(&record.snapshot)? => Ok(Some(record.snapshot)),
            _ => Ok(None),
        }
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let (mut listed, mut last) = (Vec::new(), after.cloned());
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let page = self.copies()?.records.page(last.as_ref(), wanted)?;
            let ended = page.len() < wanted;
            last = page.last().map(|record| record.snapshot.key.clone());
            for SnapshotRecord { snapshot, .. } in page {
                if self.is_there(&snapshot)? {
                    listed.push(snapshot);
                }
            }
            if ended {
                break;
            }
        }
        Ok(listed)
    }

    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let Copies { folder, records, .. } = self.copies()?;
        let key = request.key.as_str();
        refuse_data(folder, key)?;
        let content = ContentSource::Volume(request.volume.clone());
        let extra = self.extra_of(&content)?;
        let _room = self.reserve_snapshot(request.volume.capacity)?;
        let place = self.place(SNAPSHOTS, key)?;
        let mut taken = None;
        let put = |copy: &File| {
            let snapshot = taken.insert(request.snapshot()?).clone();
            self.make_durable(copy, place)?;
            records.put(SnapshotRecord { snapshot, extra })
        };
        let recorded = || records.get(&request.key).map(|record| record.is_some());
        self.make(cx, &content, place, put, recorded).map_err(|error| error.with("volume", &request.source))?;
        taken.ok_or_else(|| Error::internal("a snapshot was taken and has no record"))
    }

    fn delete(&self, _: &Context, snapshot: &Snapshot) -> Result<()> {
        let Copies { folder, records, .. } = self.copies()?;
        self.remove_unfinished(self.place(SNAPSHOTS, snapshot.key.as_str())?)?;
        self.root.trash().discard(folder, snapshot.key.as_str())?;
        records.remove(&snapshot.key)
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        let place = self.place(SNAPSHOTS, snapshot.key.as_str())?;
        if place.folder.contains(place.key)? {
            return Ok(false);
        }
        // Cut, and not put in its place: the file system did not answer at that moment.
        if self.copies()?.unfinished.contains(place.unfinished())? {
            self.put_in_place(place)?;
            return Ok(false);
        }
        Ok(true)
    }
}
