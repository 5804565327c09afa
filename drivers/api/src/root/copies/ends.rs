//! How a copy ends that is not to be a volume or a snapshot, or not to be one any more.

use super::{FolderCopies, FolderDriver};
use crate::context::Context;
use crate::copying::{Copying, TargetKey};
use crate::error::Result;
use crate::id::{Generation, VolumeKey};
use crate::root::Job;
use crate::snapshot::SourceId;
use crate::volume::Volume;

impl<D: FolderDriver> FolderCopies<D> {
    /// Ends a copy, and removes what there is of it unless it is whole.
    pub(super) fn give_up(&self, cx: &Context, key: &TargetKey) -> Result<()> {
        let Some(job) = self.jobs.stop(key, cx.deadline)? else { return Ok(()) };
        let discarded = self.driver.may_change().and_then(|()| self.discard_copy(&job));
        if discarded.is_err() {
            // Else nobody would work on it, and its source would be held for ever.
            self.jobs.go_on(key)?;
        }
        discarded
    }

    /// Discards the copy of a job that nobody works on, unless it is a volume or a snapshot by now.
    fn discard_copy(&self, job: &Job<D::Plan>) -> Result<()> {
        let key = job.target.key();
        let is_made = self.folders().is_made(&job.target)?;
        if !is_made {
            if job.whole {
                // It may have been moved there, and not made a volume or a snapshot.
                self.worker.take_back(&key, &job.extra)?;
            }
            if let TargetKey::Snapshot(key) = &key {
                self.folders().snapshots.remove(key)?;
            }
        }
        // Before its bytes: what has no job is nobody's, and goes at the next start at the latest.
        self.jobs.remove(&key)?;
        if let (TargetKey::Volume(key), false) = (&key, is_made) {
            self.driver.let_go(key, &job.extra);
        }
        self.worker.discard_unfinished(&key.to_string())
    }

    /// Gives up the copies of a source that is to be removed which fail, and which nobody waits for: else they would keep
    /// it for ever.
    pub(super) fn give_up_failing(&self, cx: &Context, is_source: impl Fn(&SourceId) -> bool) -> Result<()> {
        for copy in self.jobs.copies() {
            let fails = copy.error.as_ref().is_some_and(|error| !self.driver.is_passing(error));
            if fails && is_source(&copy.source) {
                self.give_up(cx, &copy.target)?;
            }
        }
        Ok(())
    }

    /// Has nobody go on with the copy that a volume or a snapshot was.
    pub(super) fn forget_job(&self, cx: &Context, key: &TargetKey) -> Result<()> {
        if self.jobs.stop(key, cx.deadline)?.is_none() {
            return Ok(());
        }
        if let Err(error) = self.driver.may_change().and_then(|()| self.jobs.remove(key)) {
            self.jobs.go_on(key)?;
            return Err(error);
        }
        // What has no job is nobody's, and goes at the next start at the latest.
        self.worker.discard_unfinished(&key.to_string())
    }

    /// Sees to it that nothing is copied from a volume that is to be removed, nor to it.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where a copy needs it that gets on.
    pub fn release(&self, cx: &Context, volume: &Volume) -> Result<()> {
        self.give_up_failing(cx, |source| matches!(source, SourceId::Volume(id) if id.key == volume.key))?;
        self.jobs.refuse_volume(&volume.key)?;
        // Where it was made by a copy whose last step was cut off, nobody goes on with that.
        self.forget_job(cx, &TargetKey::Volume(volume.key.clone()))
    }

    /// Gives up the copy that makes this generation of a volume, if there is one.
    ///
    /// # Errors
    /// Where it cannot be stopped or removed.
    pub fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        match self.jobs.makes(key, generation) {
            true => self.give_up(cx, &TargetKey::Volume(key.clone())),
            false => Ok(()),
        }
    }
}
