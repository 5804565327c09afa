//! Snapshots, restores and clones, as calls: they begin a copy, or find the one that was begun before, and wait for it.
//!
//! A snapshot is there when the whole copy is. It has each file as it was at some moment since the call began: `created` is
//! the beginning, since all that was written before is in it.

use dunnage_driver_api::root::{Folder, Job, SnapshotRecord, Target};
use dunnage_driver_api::{
    Bytes, Context, Copying, CreateSnapshot, CreateVolume, Error, ErrorKind, Result, Snapshot, SnapshotKey, Snapshots,
    SourceId, TargetKey, Volume,
};

use crate::store::{DEFAULT_SIZE, Extra, Store};
use crate::work::Attempts;

impl Store {
    /// Goes on with the copies that an ended process had begun, and removes what belongs to none.
    ///
    /// # Errors
    /// Where the folders cannot be read or changed.
    pub(crate) fn take_up_copies(&self) -> Result<()> {
        for Job { target, .. } in self.jobs.all() {
            // One that was cut off before its record was written was never a snapshot, nor is it one that is wanted.
            let Target::Snapshot { key, generation, .. } = &target else { continue };
            let is_of = |record: SnapshotRecord<Extra>| record.snapshot.generation == *generation;
            match self.snapshots.get(key).map(|record| record.is_some_and(is_of)) {
                Ok(true) => {}
                Ok(false) => self.jobs.remove(&target.key())?,
                // It must not keep the others from being served. Whoever works on it meets the same error.
                Err(error) => {
                    let target = target.key();
                    tracing::error!(%target, error = error.report(), "cannot find out whether a copy is to be gone on with");
                }
            }
        }
        let unfinished = &self.unfinished;
        for entry in unfinished.entries().map_err(unfinished.failed("list", ""))? {
            let (name, _) = entry.map_err(unfinished.failed("list", ""))?;
            match name.to_str() {
                Some(name) if name.parse().is_ok_and(|key| self.jobs.get(&key).is_some()) => {}
                Some(name) => self.discard_unfinished(name)?,
                None => self.root.trash().discard(unfinished, &name)?,
            }
        }
        self.jobs.take_up(self.parts.clone())
    }

    /// Makes a volume that holds what another or a snapshot holds.
    pub(crate) fn create_from(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        let key = TargetKey::Volume(request.key.clone());
        let made = || Ok(self.records.get(&request.key)?.map(|record| record.volume));
        match self.jobs.get(&key).map(|job| job.target) {
            Some(Target::Volume(volume)) => {
                if volume.fingerprint != request.fingerprint || !request.capacity.holds(volume.capacity) {
                    return Err(taken("volume", &request.name));
                }
            }
            Some(Target::Snapshot { .. }) => return Err(Error::internal("a volume that is copied is a snapshot")),
            None => self.begin_volume(request)?,
        }
        self.wait(cx, &key, made)
    }

    fn begin_volume(&self, request: &CreateVolume) -> Result<()> {
        let source = request.source.clone().ok_or_else(|| Error::internal("a copy of nothing was asked for"))?;
        let size = request.capacity.choose(DEFAULT_SIZE, self.unit())?;
        let volume = request.volume(size)?;
        // Let go of before anybody waits: whoever ends the copy holds the key too.
        let _making = self.records.making(&request.key);
        self.refuse_made(request)?;
        // Where it is what a create left it goes; where it has data it stays, and is refused.
        let _ = self.remove_empty(&request.key);
        refuse_data(&self.data, request.key.as_str())?;
        // Of a copy before this one, given up: this one would go on with it.
        self.discard_unfinished(&TargetKey::Volume(request.key.clone()).to_string())?;
        let room = self.reserve(size)?;
        let total = self.used(&source)?;
        let begun = self.jobs.begin(Job::new(Target::Volume(volume), source, total, self.attempts()?))?;
        // The job speaks for it now.
        drop(room);
        begun.start()
    }

    fn begin_snapshot(&self, request: &CreateSnapshot) -> Result<()> {
        refuse_data(&self.snapshot_data, request.key.as_str())?;
        self.discard_unfinished(&TargetKey::Snapshot(request.key.clone()).to_string())?;
        let mut snapshot = request.snapshot()?;
        snapshot.ready = false;
        let _room = self.reserve_snapshot(snapshot.size)?;
        let source = SourceId::Volume(request.source.clone());
        let total = self.used(&source)?;
        let begun = self.jobs.begin(Job::new(Target::from(&snapshot), source, total, self.attempts()?))?;
        let put = self.snapshots.put(SnapshotRecord { snapshot, extra: Extra::default() });
        if put.is_err() {
            // It may be there and not be durable. Without its job it is no snapshot, and the next attempt writes over it.
            let _ = self.snapshots.remove(&request.key);
        }
        put.and_then(|()| begun.start())
    }

    /// How much there is to copy, as far as that is known.
    fn used(&self, source: &SourceId) -> Result<Bytes> {
        let (extra, size) = match source {
            SourceId::Volume(id) => {
                let record = self.records.get(&id.key)?.map(|record| (record.extra, record.volume.capacity));
                record.ok_or_else(|| Error::not_found(format!("volume {id} is gone")))?
            }
            SourceId::Snapshot(id) => {
                let record = self.snapshots.get(&id.key)?.map(|record| (record.extra, record.snapshot.size));
                record.ok_or_else(|| Error::not_found(format!("snapshot {id} is gone")))?
            }
        };
        match (&self.quota, extra.project) {
            (Some(quota), Some(project)) => quota.used(project),
            _ => Ok(size),
        }
    }

    /// Waits for a copy. One that fails while somebody waits for it is given up: the caller is told, and may begin another.
    fn wait<T>(&self, cx: &Context, key: &TargetKey, made: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let gone = || Error::internal(format!("the copy to {key} was given up")).retry(true);
        match self.jobs.wait(key, cx.deadline) {
            Ok(()) => made()?.ok_or_else(gone),
            Err(error) if error.kind() == ErrorKind::Running => Err(error),
            Err(error) => {
                self.give_up(cx, key)?;
                // Its last step may have been all that failed.
                made()?.ok_or(error)
            }
        }
    }

    /// Ends a copy, and removes what there is of it unless it is whole.
    pub(crate) fn give_up(&self, cx: &Context, key: &TargetKey) -> Result<()> {
        let Some(job) = self.jobs.stop(key, cx.deadline)? else { return Ok(()) };
        let discarded = self.discard_copy(&job);
        if discarded.is_err() {
            // Else nobody would work on it, and its source would be held for ever.
            self.jobs.go_on(key)?;
        }
        discarded
    }

    /// Discards the copy of a job that nobody works on, unless it is a volume or a snapshot by now.
    fn discard_copy(&self, job: &Job<Attempts>) -> Result<()> {
        let key = job.target.key();
        if !self.is_made(&job.target)? {
            if job.whole {
                // It may have been moved there, and not made a volume or a snapshot.
                self.take_back(&key)?;
            }
            if let TargetKey::Snapshot(key) = &key {
                self.snapshots.remove(key)?;
            }
        }
        // Before its bytes: what has no job is nobody's, and goes at the next start at the latest.
        self.jobs.remove(&key)?;
        self.discard_unfinished(&key.to_string())
    }

    /// Gives up the copies of a source that is to be removed which fail, and which nobody waits for: else they would keep
    /// it for ever.
    pub(crate) fn give_up_failing(&self, cx: &Context, is_source: impl Fn(&SourceId) -> bool) -> Result<()> {
        for copy in self.jobs.copies() {
            if copy.error.is_some() && is_source(&copy.source) {
                self.give_up(cx, &copy.target)?;
            }
        }
        Ok(())
    }

    /// Has nobody go on with the copy that a volume or a snapshot was.
    pub(crate) fn forget_job(&self, cx: &Context, key: &TargetKey) -> Result<()> {
        if self.jobs.stop(key, cx.deadline)?.is_none() {
            return Ok(());
        }
        if let Err(error) = self.jobs.remove(key) {
            self.jobs.go_on(key)?;
            return Err(error);
        }
        // What has no job is nobody's, and goes at the next start at the latest.
        self.discard_unfinished(&key.to_string())
    }

    fn made_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        Ok(self.snapshots.get(key)?.map(|record| record.snapshot).filter(|snapshot| snapshot.ready))
    }
}

fn taken(what: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "a {what} of this name is being copied, from another source or with other parameters: use another name"
        ),
    )
    .with("name", name)
}

/// That nobody's data has the name of what is to be made.
fn refuse_data(folder: &Folder, key: &str) -> Result<()> {
    if folder.contains(key)? {
        return Err(Error::precondition(format!(
            "{} has data and no record, so it is nobody's: restore the record, or move it away",
            folder.path().join(key).display()
        )));
    }
    Ok(())
}

impl Snapshots for Store {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        self.made_snapshot(key)
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let (mut listed, mut last) = (Vec::new(), after.cloned());
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let page = self.snapshots.page(last.as_ref(), wanted)?;
            let ended = page.len() < wanted;
            last = page.last().map(|record| record.snapshot.key.clone());
            listed.extend(page.into_iter().map(|record| record.snapshot).filter(|snapshot| snapshot.ready));
            if ended {
                break;
            }
        }
        Ok(listed)
    }

    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let key = TargetKey::Snapshot(request.key.clone());
        let is_copied = self.jobs.get(&key).is_some();
        match self.snapshots.get(&request.key)? {
            Some(record) if is_copied || record.snapshot.ready => {
                if record.snapshot.fingerprint != request.fingerprint {
                    return Err(taken("snapshot", &request.name));
                }
            }
            _ => self.begin_snapshot(request).map_err(|error| error.with("volume", &request.source))?,
        }
        self.wait(cx, &key, || self.made_snapshot(&request.key)).map_err(|error| error.with("volume", &request.source))
    }

    fn delete(&self, cx: &Context, snapshot: &Snapshot) -> Result<()> {
        let key = &snapshot.key;
        self.give_up_failing(cx, |source| matches!(source, SourceId::Snapshot(id) if id.key == *key))?;
        self.jobs.refuse_snapshot(key)?;
        self.forget_job(cx, &TargetKey::Snapshot(key.clone()))?;
        let project = self.snapshots.get(key)?.and_then(|record| record.extra.project);
        self.discard(&self.snapshot_data, key.as_str(), project)?;
        self.snapshots.remove(key)
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        self.snapshot_data.contains(snapshot.key.as_str()).map(|found| !found)
    }
}

#[cfg(test)]
mod tests;
