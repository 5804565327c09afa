//! Snapshots and clones where files share no blocks (ext4 and others): copied in the background, byte by byte.
//!
//! So that a copy is of one moment its source stays as it is meanwhile: it must not be in use when the copy begins, and
//! is not brought to a node, nor removed, before it is whole. A snapshot is cut as soon as its source is held so: it has a
//! record, and is ready later. A volume has no word for "not ready": it is there when it is whole, and the call that
//! makes it is repeated until then.
//!
//! - A snapshot is a job first, then a record that is not ready. Killed between the two, it is a job in vain: the next
//!   start removes it.
//! - Whole and durable, it is moved to its place, its record is made ready, and the job goes.
//! - A volume is moved to its place, gets its record, and the job goes. Until it has its record nobody finds it.

use std::time::{Duration, Instant};

use dunnage_driver_api::root::{Job, SnapshotRecord, Target};
use dunnage_driver_api::{
    Bytes, ContentSource, Context, CreateSnapshot, CreateVolume, Error, ErrorKind, Result, Snapshot, SourceId,
    TargetKey, Volume,
};

use crate::image_file;
use crate::store::{Extra, Store, UNIT};

/// How long the answer to CreateSnapshot waits for a copy that may be small.
const SHORT: Duration = Duration::from_secs(2);

impl Store {
    /// Removes the jobs that nobody is to go on with: of snapshots that were never taken, of what is whole, and of volumes
    /// whose source is in use. One of which that cannot be found out stays.
    pub(crate) fn drop_vain_jobs(&self) {
        for job in self.jobs.all() {
            if let Err(error) = self.drop_vain(&job) {
                // It must not keep the others from being served. Whoever works on it meets the same error.
                let target = job.target.key();
                tracing::error!(%target, error = error.report(), "cannot find out whether a copy is to be gone on with");
            }
        }
    }

    fn drop_vain(&self, job: &Job<Extra>) -> Result<()> {
        match &job.target {
            Target::Snapshot { key, generation, .. } => {
                let record = self.snapshot_records.get(key)?.map(|record| record.snapshot);
                match record.filter(|snapshot| snapshot.generation == *generation) {
                    Some(snapshot) if snapshot.ready => self.jobs.remove(&job.target.key()),
                    Some(_) => Ok(()),
                    None => self.discard_copy(job).map(drop),
                }
            }
            Target::Volume(volume) => {
                if self.records.get(&volume.key)?.is_some() {
                    self.jobs.remove(&job.target.key())
                } else if self.is_of_used(job).unwrap_or(true) {
                    // Also where nobody can say: nothing of it is done yet.
                    self.discard_copy(job).map(drop)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Whether a job of which nothing is done was begun and never found its source idle: once it has, nobody can use that.
    fn is_of_used(&self, job: &Job<Extra>) -> Result<bool> {
        match &job.source {
            SourceId::Volume(id) if job.done == Bytes::ZERO && !job.whole => match self.records.get(&id.key)? {
                Some(record) => Ok(self.refuse_in_use(&record.volume).is_err()),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// Begins a snapshot, and waits a little for its end.
    pub(crate) fn cut_in_background(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let extra = self.extra_of(&ContentSource::Volume(request.volume.clone()))?;
        let size = request.volume.capacity;
        let room = self.reserve_snapshot(size)?;
        let mut snapshot = request.snapshot()?;
        snapshot.ready = false;
        let source = SourceId::Volume(request.source.clone());
        let begun = self.jobs.begin(Job::new((&snapshot).into(), source, size, extra.clone()))?;
        self.refuse_in_use(&request.volume)?;
        // From now on the volume stays as it is.
        snapshot.created = request.snapshot()?.created;
        let put = self.snapshot_records.put(SnapshotRecord { snapshot: snapshot.clone(), extra });
        if let Err(error) = put {
            // A record that was written but may not be durable keeps its job: the next attempt finds both.
            if !matches!(self.snapshot_records.get(&request.key), Ok(None)) {
                begun.start()?;
            }
            return Err(error);
        }
        // The record speaks for it now.
        drop(room);
        begun.start()?;
        let until = cx.deadline.min(Instant::now() + SHORT);
        // That it is not whole yet, or fails, is told by whoever asks whether it is ready.
        if self.jobs.wait(&TargetKey::Snapshot(request.key.clone()), until).is_ok() {
            snapshot.ready = true;
        }
        Ok(snapshot)
    }

    /// Makes a volume that holds what `content` holds, or goes on waiting for it.
    pub(crate) fn create_in_background(
        &self,
        cx: &Context,
        request: &CreateVolume,
        content: &ContentSource,
    ) -> Result<Volume> {
        let target = TargetKey::Volume(request.key.clone());
        if let Some(job) = self.jobs.get(&target) {
            refuse_another(&job.target, request)?;
            match content {
                ContentSource::Volume(volume) if self.is_of_used(&job)? => {
                    self.give_up(&target, cx.deadline)?;
                    self.refuse_in_use(volume)?;
                }
                _ => {}
            }
            self.jobs.go_on(&target)?;
        } else {
            self.begin_volume(request, content)?;
        }
        match self.jobs.wait(&target, cx.deadline) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Running => return Err(error),
            // Whoever asked may never ask again, and nobody else knows of it.
            Err(error) => {
                if self.give_up(&target, cx.deadline)? {
                    return Err(error.during("copy the image").with("volume", &request.key));
                }
            }
        }
        let record = self.records.get(&request.key)?;
        record.map(|record| record.volume).ok_or_else(|| {
            Error::internal("a volume was copied and has no record: repeat the call").with("volume", &request.key)
        })
    }

    fn begin_volume(&self, request: &CreateVolume, content: &ContentSource) -> Result<()> {
        let extra = self.extra_of(content)?;
        request.takes_copy_of(extra.fs_type)?;
        let size = request.device_size(extra.fs_type, UNIT)?;
        let source = request.source.clone().ok_or_else(|| Error::internal("a copy of nothing is asked for"))?;
        // Let go of before anybody waits: whoever ends the copy holds the key too.
        let _making = self.records.making(&request.key);
        self.refuse_made(request)?;
        image_file::clear(&self.images, &request.key)?;
        let room = self.reserve_volume(size, size)?;
        let target = Target::Volume(request.volume(size)?);
        let begun = self.jobs.begin(Job::new(target, source, content.size(), extra))?;
        // The job speaks for it now.
        drop(room);
        if let ContentSource::Volume(volume) = content {
            self.refuse_in_use(volume)?;
        }
        begun.start()
    }

    /// That nobody uses a volume of which a copy has begun. The job came first: whoever brings the volume to this node
    /// takes the lock of its image, and then looks for jobs.
    fn refuse_in_use(&self, volume: &Volume) -> Result<()> {
        let key = volume.key.as_str();
        let image = image_file::open(&self.images, &volume.key).map_err(self.images.failed("open the image", key))?;
        let Some(who) = self.bound_to(volume, &image)? else { return Ok(()) };
        Err(Error::precondition(format!(
            "the volume is in use on this node (its image is bound to {who}), and the file system of the root shares no \
             blocks: a copy takes a while, and the volume must not change meanwhile; unpublish and unstage it first, or put \
             the root on an XFS or a btrfs"
        ))
        .with("volume", key)
        .retry(true))
    }

    /// Gives a copy up with all there is of it. `false` where there is none, perhaps as it has just ended.
    pub(crate) fn give_up(&self, target: &TargetKey, deadline: Instant) -> Result<bool> {
        let Some(job) = self.jobs.stop(target, deadline)? else { return Ok(false) };
        let discarded = self.discard_copy(&job);
        if discarded.is_err() {
            // Else nobody would work on it, and its source would be held for ever.
            self.jobs.go_on(target)?;
        }
        discarded
    }

    /// Discards the copy of a job that nobody works on. `false` where it is a volume by now, which stays.
    fn discard_copy(&self, job: &Job<Extra>) -> Result<bool> {
        let target = job.target.key();
        match &job.target {
            Target::Volume(volume) if self.records.get(&volume.key)?.is_some() => {
                self.jobs.remove(&target)?;
                return Ok(false);
            }
            Target::Snapshot { key, generation, .. } => {
                let record = self.snapshot_records.get(key)?;
                if record.is_some_and(|record| record.snapshot.generation == *generation) {
                    let message = "the snapshot was taken just now: the same call repeated finds it";
                    return Err(Error::new(ErrorKind::Running, message).with("snapshot", key));
                }
            }
            Target::Volume(_) => {}
        }
        self.withdraw(job)?;
        // Before its bytes: what has no job is nobody's, and goes at the next start at the latest. A job without its bytes
        // would be gone on with.
        self.jobs.remove(&target)?;
        if let Err(error) = self.remove_unfinished(self.place(&target)) {
            tracing::warn!(%target, error = error.report(), "what was given up of a copy goes at the next start");
        }
        Ok(true)
    }
}

/// That what is being copied to the name of a volume is what it asks for.
///
/// # Errors
/// `AlreadyExists` where it is not.
fn refuse_another(target: &Target, request: &CreateVolume) -> Result<()> {
    match target {
        Target::Volume(volume)
            if volume.fingerprint == request.fingerprint && request.capacity.holds(volume.capacity) =>
        {
            Ok(())
        }
        _ => Err(is_another(request)),
    }
}

/// Why a volume is not made that has the name of another one that is being copied.
pub(crate) fn is_another(request: &CreateVolume) -> Error {
    let message = "a volume of this name is being copied, from another source or with another size or other parameters: use \
                   another name";
    Error::new(ErrorKind::AlreadyExists, message).with("name", &request.name)
}
