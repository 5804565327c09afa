//! The calls for snapshots.

use super::{FolderCopies, FolderDriver, refuse_data, taken};
use crate::context::Context;
use crate::controller::Snapshots;
use crate::copying::TargetKey;
use crate::error::Result;
use crate::id::{Generation, SnapshotKey};
use crate::root::{Job, SnapshotRecord, Target};
use crate::snapshot::{CreateSnapshot, Snapshot, SourceId};

impl<D: FolderDriver> FolderCopies<D> {
    fn begin_snapshot(&self, request: &CreateSnapshot) -> Result<()> {
        let folders = self.folders();
        self.driver.may_copy()?;
        refuse_data(&folders.snapshot_data, request.key.as_str())?;
        self.worker.discard_unfinished(&TargetKey::Snapshot(request.key.clone()).to_string())?;
        let mut snapshot = request.snapshot()?;
        snapshot.ready = false;
        let _room = self.driver.reserve_snapshot(snapshot.size, self.promised())?;
        let source = SourceId::Volume(request.source.clone());
        let total = self.used(&source)?;
        let begun = self.jobs.begin(Job::new(Target::from(&snapshot), source, total, self.driver.plan(None)?))?;
        let put = folders.snapshots.put(SnapshotRecord { snapshot, extra: D::Extra::default() });
        if put.is_err() {
            // It may be there and not be durable. Without its job it is no snapshot, and the next attempt writes over it.
            let _ = folders.snapshots.remove(&request.key);
        }
        put.and_then(|()| begun.start())
    }

    fn made_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        Ok(self.folders().snapshots.get(key)?.map(|record| record.snapshot).filter(|snapshot| snapshot.ready))
    }
}

impl<D: FolderDriver> Snapshots for FolderCopies<D> {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        self.made_snapshot(key)
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let (mut listed, mut last) = (Vec::new(), after.cloned());
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let page = self.folders().snapshots.page(last.as_ref(), wanted)?;
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
        match self.folders().snapshots.get(&request.key)? {
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
        let (key, folders) = (&snapshot.key, self.folders());
        let record = folders.snapshots.get(key)?.filter(|record| record.snapshot.generation == snapshot.generation);
        // It is gone: what has this name now is another, in a root that was opened anew since the host looked.
        let Some(SnapshotRecord { extra, .. }) = record else { return Ok(()) };
        self.give_up_failing(cx, |source| matches!(source, SourceId::Snapshot(id) if id.key == *key))?;
        self.jobs.refuse_snapshot(key)?;
        self.forget_job(cx, &TargetKey::Snapshot(key.clone()))?;
        self.worker.discard(&folders.snapshot_data, key.as_str(), Some(&extra))?;
        folders.snapshots.remove(key)
    }

    fn abandon(&self, cx: &Context, key: &SnapshotKey, generation: &Generation) -> Result<()> {
        let target = TargetKey::Snapshot(key.clone());
        let is_of =
            |job: Job<D::Plan>| matches!(job.target, Target::Snapshot { generation: its, .. } if its == *generation);
        if self.jobs.get(&target).is_some_and(is_of) { self.give_up(cx, &target) } else { Ok(()) }
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        self.folders().snapshot_data.contains(snapshot.key.as_str()).map(|found| !found)
    }
}
