//! The work on a job: from the first byte to the record.

use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::sync::Arc;

use dunnage_driver_api::root::{Attempt, Record, SnapshotRecord, Target, Work};
use dunnage_driver_api::{Bytes, Error, Result, SourceId};
use rustix::fs::OFlags;

use crate::files::{Files, Place};
use crate::image_file;
use crate::sparse::Copying;
use crate::store::Extra;

/// What the threads that copy work with.
pub(crate) struct Copier {
    files: Arc<Files>,
}

impl Work<Extra> for Copier {
    fn run(&self, attempt: &mut Attempt<'_, Extra>) -> Result<()> {
        let target = attempt.job.target.key();
        let place = self.files.place(&target);
        if self.is_deleted(&attempt.job.target)? {
            // The removal of the snapshot was cut off behind its record.
            self.files.withdraw(&attempt.job)?;
            return self.files.remove_unfinished(place);
        }
        let is_unfinished = || self.files.unfinished.contains(place.unfinished());
        if !attempt.job.whole {
            self.copy(attempt, place)?;
        } else if !is_unfinished()? && !place.folder.contains(place.key)? {
            // Its source may have changed since.
            return Err(Error::precondition("the copy was whole, and its bytes are gone: delete it"));
        }
        if is_unfinished()? {
            self.files.put_in_place(place)?;
        } else {
            // It was moved before, perhaps by a process that was killed at once.
            place.folder.sync().map_err(place.folder.failed("sync", ""))?;
        }
        self.record(&attempt.job.target, &attempt.job.extra)
    }
}

impl Copier {
    pub(crate) fn new(files: Arc<Files>) -> Self {
        Self { files }
    }

    /// Whether it is a snapshot that was deleted: one has its record before its job is worked on.
    fn is_deleted(&self, target: &Target) -> Result<bool> {
        let Target::Snapshot { key, generation, .. } = target else { return Ok(false) };
        let record = self.files.snapshot_records.get(key)?;
        Ok(record.is_none_or(|record| record.snapshot.generation != *generation))
    }

    /// Copies what is left, and makes it durable.
    fn copy(&self, attempt: &mut Attempt<'_, Extra>, place: Place<'_>) -> Result<()> {
        let source = self.source(&attempt.job.source)?;
        let copy = self.begun(attempt, place)?;
        let total = attempt.job.total;
        let failed = |error| self.files.unfinished.failed("make room in", place.unfinished())(error);
        // What an attempt wrote that was cut off, behind what is durable, is written anew.
        copy.set_len(attempt.job.done.get()).and_then(|()| copy.set_len(total.get())).map_err(failed)?;
        let (copying, begun) = (Copying { files: &self.files, source: &source, copy: &copy }, attempt.job.done);
        copying.run(attempt)?;
        if let Target::Volume(volume) = &attempt.job.target {
            self.files.refuse_last(&copy, volume.capacity, place)?;
            image_file::grow(&copy, volume.capacity.get(), self.files.allocation)?;
        }
        self.files.make_durable(&copy, place)?;
        copying.forget(begun.get(), total.get());
        (attempt.job.done, attempt.job.whole) = (total, true);
        attempt.keep()
    }

    /// The file of the copy: the one that is durable as far as the job says, or a new one.
    fn begun(&self, attempt: &mut Attempt<'_, Extra>, place: Place<'_>) -> Result<File> {
        if attempt.job.done.get() > 0 {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let opened = self.files.unfinished.open(place.unfinished(), flags, 0);
            let opened = opened.and_then(|copy| Ok((copy.metadata()?.len(), copy)));
            match opened {
                Err(error) if error.kind() != NotFound => {
                    return Err(self.files.unfinished.failed("open", place.unfinished())(error));
                }
                Ok((length, copy)) if length >= attempt.job.done.get() => return Ok(copy),
                // It is gone, or was cut by somebody. Nothing is done then, and the job says so before there is a file that
                // it could be believed of.
                _ => {
                    attempt.job.done = Bytes::ZERO;
                    attempt.keep()?;
                }
            }
        }
        let copy = self.files.begin(place)?;
        self.files.unfinished.sync().map_err(self.files.unfinished.failed("sync", ""))?;
        Ok(copy)
    }

    /// Opens what is copied, which must still be what it was.
    fn source(&self, source: &SourceId) -> Result<File> {
        let gone = || Error::precondition(format!("what is copied, {source}, is gone: delete the copy"));
        match source {
            SourceId::Volume(id) => {
                let record = self.files.records.get(&id.key)?;
                record.filter(|record| record.volume.generation == id.generation).ok_or_else(gone)?;
                image_file::open(&self.files.images, &id.key)
                    .map_err(self.files.images.failed("open the image", id.key.as_str()))
            }
            SourceId::Snapshot(id) => {
                let record = self.files.snapshot_records.get(&id.key)?;
                record.filter(|record| record.snapshot.generation == id.generation).ok_or_else(gone)?;
                let key = id.key.as_str();
                self.files.open_snapshot(key).map_err(self.files.snapshots.failed("open the snapshot", key))
            }
        }
    }

    /// Makes what is in its place a volume, or a snapshot that is ready.
    fn record(&self, target: &Target, extra: &Extra) -> Result<()> {
        match target {
            Target::Volume(volume) => {
                let _making = self.files.records.making(&volume.key);
                match self.files.records.get(&volume.key)? {
                    // It was written by an attempt before, and the volume may have grown since.
                    Some(record) if record.volume.generation == volume.generation => Ok(()),
                    Some(_) => Err(Error::internal("another volume has the name of the copy: it is not written over")),
                    None => self.files.records.put(&Record { volume: volume.clone(), extra: extra.clone() }),
                }
            }
            Target::Snapshot { key, generation, .. } => {
                let record = self.files.snapshot_records.get(key)?;
                let record = record.filter(|record| record.snapshot.generation == *generation);
                let SnapshotRecord { mut snapshot, extra } =
                    record.ok_or_else(|| Error::internal("the record of the snapshot is gone"))?;
                if snapshot.ready {
                    return Ok(());
                }
                snapshot.ready = true;
                self.files.snapshot_records.put(SnapshotRecord { snapshot, extra })
            }
        }
    }
}
