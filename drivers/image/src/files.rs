//! The files of a root and their records: what calls and the threads that copy both work on.

use std::fs::File;
use std::io;
use std::io::ErrorKind::NotFound;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use dunnage_driver_api::root::{Folder, GroupRecords, Job, Jobs, Records, Root, SnapshotRecords};
use dunnage_driver_api::{Bytes, ContentSource, Error, Result, TargetKey};
use rustix::fs::{AtFlags, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::config::Allocation;
use crate::store::{Extra, IMAGES};

/// The folder of the snapshots.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// The folder of the copies that are being made.
pub(crate) const UNFINISHED: &str = "unfinished";

/// The folders of an opened root, and its records.
pub(crate) struct Files {
    pub(crate) allocation: Allocation,
    pub(crate) images: Folder,
    pub(crate) snapshots: Folder,
    pub(crate) unfinished: Folder,
    pub(crate) records: Records<Extra>,
    pub(crate) snapshot_records: SnapshotRecords<Extra>,
    pub(crate) groups: GroupRecords,
}

/// Where a copy goes when it is whole.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Folder,
    /// The name of that folder.
    kind: &'static str,
    pub(crate) key: &'a str,
}

impl Place<'_> {
    /// The name of the copy while it is made.
    pub(crate) fn unfinished(&self) -> String {
        format!("{}.{}", self.kind, self.key)
    }
}

impl Files {
    /// Opens those of this root.
    ///
    /// # Errors
    /// `FailedPrecondition` where there are records and the folder of their bytes is missing.
    pub(crate) fn open(root: &Root, allocation: Allocation) -> Result<Arc<Self>> {
        let (records, snapshot_records) = (root.records()?, root.snapshots()?);
        let unfinished = root.folder().folder_or_make(UNFINISHED, 0o700);
        Ok(Arc::new(Self {
            allocation,
            images: root.data(IMAGES, &records)?,
            snapshots: root.data_of_snapshots(SNAPSHOTS, &snapshot_records)?,
            unfinished: unfinished.map_err(root.folder().failed("open", UNFINISHED))?,
            records,
            snapshot_records,
            groups: root.groups()?,
        }))
    }

    /// Moves every whole copy to its place, and removes the others but those that are jobs.
    ///
    /// # Errors
    /// Where the folders cannot be read or changed.
    pub(crate) fn finish_copies(&self, jobs: &Jobs<Extra>) -> Result<()> {
        let unfinished = &self.unfinished;
        for entry in unfinished.entries().map_err(unfinished.failed("list", ""))? {
            let (name, _) = entry.map_err(unfinished.failed("list", ""))?;
            let target = name.to_str().and_then(target_of);
            let whole = match &target {
                Some(target) if jobs.get(target).is_some() => continue,
                Some(target) => self.is_whole(target),
                None => Ok(false),
            };
            match (&target, whole) {
                (Some(target), Ok(true)) => self.put_in_place(self.place(target))?,
                // It must not keep the others from being served.
                (_, Err(error)) => {
                    tracing::error!(?name, error = error.report(), "cannot find out whether a copy is whole: it stays");
                }
                _ => unfinished.unlink(&name).map_err(unfinished.failed("remove", &name))?,
            }
        }
        Ok(())
    }

    /// Whether a copy that is no job has its record, and is not in its place.
    fn is_whole(&self, target: &TargetKey) -> Result<bool> {
        let recorded = match target {
            TargetKey::Volume(key) => self.records.get(key)?.is_some(),
            TargetKey::Snapshot(key) => self.snapshot_records.get(key)?.is_some_and(|record| record.snapshot.ready),
        };
        let place = self.place(target);
        Ok(recorded && !place.folder.contains(place.key)?)
    }

    pub(crate) fn place<'a>(&'a self, target: &'a TargetKey) -> Place<'a> {
        match target {
            TargetKey::Volume(key) => Place { folder: &self.images, kind: IMAGES, key: key.as_str() },
            TargetKey::Snapshot(key) => Place { folder: &self.snapshots, kind: SNAPSHOTS, key: key.as_str() },
        }
    }

    pub(crate) fn put_in_place(&self, place: Place<'_>) -> Result<()> {
        // Nothing that has this name is ever written over: where a record has its bytes they are not moved here.
        let flags = RenameFlags::NOREPLACE;
        let moved = rustix::fs::renameat_with(&self.unfinished, place.unfinished(), place.folder, place.key, flags);
        let moved = match moved {
            // A file system that has no such rename.
            Err(Errno::INVAL) => self.link_in_place(place),
            moved => moved.map_err(io::Error::from),
        };
        moved.and_then(|()| place.folder.sync()).map_err(place.folder.failed("put the copy in its place", place.key))
    }

    /// The same in two steps; after a kill between them the second is made alone.
    fn link_in_place(&self, place: Place<'_>) -> io::Result<()> {
        let name = place.unfinished();
        match rustix::fs::linkat(&self.unfinished, &name, place.folder, place.key, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let (copy, there) = (self.unfinished.stat(&name)?, place.folder.stat(place.key)?);
                if (copy.st_dev, copy.st_ino) != (there.st_dev, there.st_ino) {
                    return Err(Errno::EXIST.into());
                }
            }
            linked => linked?,
        }
        place.folder.sync()?;
        self.unfinished.unlink(&name)
    }

    /// Has nothing of a copy that is given up in its place, so that what is left of it is among the unfinished. Until its
    /// job goes the copy is whole all the same, and can be put in its place again.
    pub(crate) fn withdraw(&self, job: &Job<Extra>) -> Result<()> {
        let target = job.target.key();
        let recorded = match &target {
            TargetKey::Volume(key) => self.records.get(key)?.is_some(),
            TargetKey::Snapshot(key) => self.snapshot_records.get(key)?.is_some(),
        };
        if !job.whole || recorded {
            return Ok(());
        }
        let place = self.place(&target);
        self.take_back(place).map_err(place.folder.failed("take the copy back from its place", place.key))
    }

    fn take_back(&self, place: Place<'_>) -> io::Result<()> {
        let name = place.unfinished();
        match (present(self.unfinished.stat(&name))?, present(place.folder.stat(place.key))?) {
            (None, Some(_)) => {
                place.folder.rename(place.key, &self.unfinished, &name)?;
                self.unfinished.sync()?;
            }
            (Some(copy), Some(there)) if (copy.st_dev, copy.st_ino) == (there.st_dev, there.st_ino) => {
                place.folder.unlink(place.key)?;
            }
            // What has the name there is not the copy, which never got there: it is somebody else's.
            (Some(_), Some(_)) | (_, None) => {}
        }
        place.folder.sync()
    }

    pub(crate) fn make_durable(&self, copy: &File, place: Place<'_>) -> Result<()> {
        let unfinished = &self.unfinished;
        copy.sync_all().and_then(|()| unfinished.sync()).map_err(unfinished.failed("sync", place.unfinished()))
    }

    /// That what the copy still takes, where it gets all its blocks, leaves the last of the disk to volumes in use.
    pub(crate) fn refuse_last(&self, copy: &File, size: Bytes, place: Place<'_>) -> Result<()> {
        if self.allocation == Allocation::Sparse {
            return Ok(());
        }
        let failed = |error| self.unfinished.failed("measure", place.unfinished())(error);
        let held = copy.metadata().map_err(failed)?.blocks().saturating_mul(512);
        match size.minus(Bytes::new(held)) {
            Bytes::ZERO => Ok(()),
            more => self.unfinished.sizes().map_err(failed)?.refuse_last(more),
        }
    }

    pub(crate) fn extra_of(&self, content: &ContentSource) -> Result<Extra> {
        let (extra, name) = match content {
            ContentSource::Volume(volume) => (self.records.get(&volume.key)?.map(|record| record.extra), &volume.name),
            ContentSource::Snapshot(snapshot) => {
                (self.snapshot_records.get(&snapshot.key)?.map(|record| record.extra), &snapshot.name)
            }
        };
        extra.ok_or_else(|| Error::not_found(format!("what was to be copied, {name:?}, is gone")))
    }

    /// Removes what an attempt that was cut off left among the unfinished.
    pub(crate) fn remove_unfinished(&self, place: Place<'_>) -> Result<()> {
        let (unfinished, name) = (&self.unfinished, place.unfinished());
        match unfinished.unlink(&name) {
            Err(error) if error.kind() != NotFound => Err(unfinished.failed("remove", &name)(error)),
            _ => Ok(()),
        }
    }

    /// A new file among the unfinished.
    pub(crate) fn begin(&self, place: Place<'_>) -> Result<File> {
        self.remove_unfinished(place)?;
        let name = place.unfinished();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.unfinished.open(&name, flags, 0o600).map_err(self.unfinished.failed("make", &name))
    }

    /// Opens the bytes of a snapshot.
    pub(crate) fn open_snapshot(&self, key: &str) -> io::Result<File> {
        self.snapshots.open(key, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)
    }
}

fn present(stat: io::Result<Stat>) -> io::Result<Option<Stat>> {
    match stat {
        Err(error) if error.kind() == NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// What the file of this name among the unfinished will be.
fn target_of(name: &str) -> Option<TargetKey> {
    match name.split_once('.')? {
        (IMAGES, key) => key.parse().ok().map(TargetKey::Volume),
        (SNAPSHOTS, key) => key.parse().ok().map(TargetKey::Snapshot),
        _ => None,
    }
}
