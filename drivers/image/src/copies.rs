//! Snapshots and clones. Where the root's file system lets files share their blocks (XFS, btrfs) a copy is one step, here;
//! elsewhere it is made [in the background](crate::background).
//!
//! A copy is made in a folder of its own and made durable; then its record is written, and last it is moved to where the
//! record's bytes are looked for. So killed before the record, a copy is nobody's and goes at the next start; killed after
//! it, the next start moves it. A file with data in it that has a key for its name and no record stays what it is everywhere: the
//! data of somebody who lost a record.

use std::fs::File;
use std::time::Duration;

use dunnage_driver_api::root::{Folder, Record, Reservation, SnapshotRecord};
use dunnage_driver_api::{
    Bytes, ContentSource, Context, CreateSnapshot, CreateVolume, Error, InUse, Result, Snapshot, SnapshotKey,
    Snapshots, TargetKey, Volume, VolumeId,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::files::{Files, Place};
use crate::image_file;
use crate::loop_device::{self, LoopDevice};
use crate::store::{Store, UNIT};

/// How long the users of a volume may wait for its copy. To share the blocks of a file takes about a second for a
/// million extents.
pub(crate) const STILL: Duration = Duration::from_secs(10);

/// Whether files of this root can share blocks.
///
/// # Errors
/// Where the file system does not answer.
pub(crate) fn can_share(files: &Files) -> Result<bool> {
    let images = &files.images;
    let nameless = || rustix::fs::openat(images, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, 0o600.into());
    let shared = nameless().and_then(|one| nameless().and_then(|other| rustix::fs::ioctl_ficlone(&one, &other)));
    match shared {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => Ok(false),
        // There is no room to try it.
        Err(Errno::NOSPC | Errno::DQUOT) => can_share_full(files),
        Err(error) => Err(images.failed("find out whether files share blocks in", "")(error.into())),
    }
}

/// The same of a disk that is full: no file shares its blocks with itself, and a file system that has files share blocks
/// says so in another way than one that has not.
fn can_share_full(files: &Files) -> Result<bool> {
    for folder in [&files.images, &files.snapshots] {
        for entry in folder.entries().map_err(folder.failed("list", ""))? {
            let (name, _) = entry.map_err(folder.failed("list", ""))?;
            if let Ok(file) = folder.open(&name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0) {
                return Ok(matches!(rustix::fs::ioctl_ficlone(&file, &file), Ok(()) | Err(Errno::INVAL)));
            }
        }
    }
    Ok(false)
}

impl Store {
    /// Makes a volume that holds what `content` holds.
    pub(crate) fn create_from(&self, cx: &Context, request: &CreateVolume, content: &ContentSource) -> Result<Volume> {
        let extra = self.extra_of(content)?;
        request.takes_copy_of(extra.fs_type)?;
        let size = request.device_size(extra.fs_type, UNIT)?;
        let volume = request.volume(size)?;
        let _making = self.records.making(&request.key);
        self.refuse_made(request)?;
        image_file::clear(&self.images, &request.key)?;
        let room = self.reserve_volume(size, size)?;
        let target = TargetKey::Volume(request.key.clone());
        let place = self.place(&target);
        let put = |copy: &File| {
            image_file::grow(copy, size.get(), self.config.allocation)?;
            self.make_durable(copy, place)?;
            self.records.put_for(&Record { volume: volume.clone(), extra }, room)
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
            let _ = self.unfinished.unlink(place.unfinished());
        }
        made.map_err(|error| error.during("copy the image").with("to", place.unfinished()))
    }

    /// Copies the bytes of `content` into a new file among the unfinished.
    fn copy(&self, cx: &Context, content: &ContentSource, place: Place<'_>) -> Result<File> {
        let copy = self.begin(place)?;
        match content {
            ContentSource::Snapshot(snapshot) => {
                let key = snapshot.key.as_str();
                let source = self.open_snapshot(key).map_err(self.snapshots.failed("open the snapshot", key))?;
                share(&source, &copy)?;
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

    pub(crate) fn reserve_snapshot(&self, size: Bytes) -> Result<Reservation> {
        let others = || Ok(self.records.promised()?.plus(self.jobs.promised()));
        self.room.reserve(&self.folders(), size, size, others, |fits| self.snapshot_records.reserve(size, fits))
    }

    /// Copies a volume in one step.
    fn cut(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let content = ContentSource::Volume(request.volume.clone());
        let extra = self.extra_of(&content)?;
        let _room = self.reserve_snapshot(request.volume.capacity)?;
        let target = TargetKey::Snapshot(request.key.clone());
        let place = self.place(&target);
        let mut taken = None;
        let put = |copy: &File| {
            let snapshot = taken.insert(request.snapshot()?).clone();
            self.make_durable(copy, place)?;
            self.snapshot_records.put(SnapshotRecord { snapshot, extra })
        };
        let recorded = || self.snapshot_records.get(&request.key).map(|record| record.is_some());
        self.make(cx, &content, place, put, recorded)?;
        taken.ok_or_else(|| Error::internal("a snapshot was taken and has no record"))
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

impl Snapshots for Store {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        match self.snapshot_records.get(key)? {
            Some(record) if self.is_there(&record.snapshot)? => Ok(Some(record.snapshot)),
            _ => Ok(None),
        }
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let (mut listed, mut last) = (Vec::new(), after.cloned());
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let page = self.snapshot_records.page(last.as_ref(), wanted)?;
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
        self.give_up(&TargetKey::Snapshot(request.key.clone()), cx.deadline)?;
        refuse_data(&self.snapshots, request.key.as_str())?;
        let taken = if self.shares { self.cut(cx, request) } else { self.cut_in_background(cx, request) };
        taken.map_err(|error| error.with("volume", &request.source))
    }

    fn delete(&self, cx: &Context, snapshot: &Snapshot) -> Result<()> {
        self.jobs.refuse_snapshot(&snapshot.key)?;
        let target = TargetKey::Snapshot(snapshot.key.clone());
        if self.jobs.stop(&target, cx.deadline)?.is_some() {
            // Without its record it is nobody's, also at the next start: what there is of it then goes with the job.
            if let Err(error) = self.snapshot_records.remove(&snapshot.key) {
                self.jobs.go_on(&target)?;
                return Err(error);
            }
            return self.give_up(&target, cx.deadline).map(drop);
        }
        self.remove_unfinished(self.place(&target))?;
        self.root.trash().discard(&self.snapshots, snapshot.key.as_str())?;
        self.snapshot_records.remove(&snapshot.key)
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        let target = TargetKey::Snapshot(snapshot.key.clone());
        if self.jobs.get(&target).is_some() {
            return Ok(false);
        }
        let place = self.place(&target);
        if place.folder.contains(place.key)? {
            return Ok(false);
        }
        // A copy in the background may have ended since the caller looked; one that is no job is never gone on with.
        let is_cut = self.snapshot_records.get(&snapshot.key)?.is_some_and(|record| record.snapshot.ready);
        // Cut, and not put in its place: the file system did not answer at that moment.
        if is_cut && self.unfinished.contains(place.unfinished())? {
            self.put_in_place(place)?;
            return Ok(false);
        }
        Ok(true)
    }
}
