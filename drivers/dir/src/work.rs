//! What a thread of the root does for a copy, from an empty folder to a volume or a snapshot.
//!
//! ```text
//! <root>/unfinished/<kind>.<key>/tree      the copy that is being made
//! <root>/unfinished/<kind>.<key>/beside    what its maker needs meanwhile
//! ```
//!
//! A whole copy, durable and told to be whole by its job, is moved to its place, and its record written last: killed in
//! between, the next attempt finds it in its place and writes the record. Nothing else has that place while there is a job.

use std::io;

use dunnage_driver_api::root::{Attempt, Folder, Record, Target, TreeCopy, Work};
use dunnage_driver_api::{Bytes, Error, ErrorKind, Result, SourceId, TargetKey, boot_id};
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use crate::store::{Extra, Parts};

const TREE: &str = "tree";
const BESIDE: &str = "beside";

/// What is kept of a copy that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// During which run of the kernel it was begun: what was copied in another may not have reached the disk.
    boot: String,
    /// Whether its folder is a project.
    project: bool,
}

impl Parts {
    /// What a copy that is begun now has to be gone on with.
    pub(crate) fn attempts(&self) -> Result<Attempts> {
        Ok(Attempts { boot: boot_id()?, project: self.quota.is_some() })
    }

    /// Puts what there is of a copy into the trash.
    pub(crate) fn discard_unfinished(&self, name: &str) -> Result<()> {
        if let Ok(folder) = self.unfinished.folder(name) {
            // Nobody but this process ever had it.
            self.forget(&folder, TREE, None).map_err(folder.failed("free the quota of", TREE))?;
        }
        self.root.trash().discard(&self.unfinished, name)
    }

    /// Where a copy goes when it is whole.
    pub(crate) fn place(&self, key: &TargetKey) -> &Folder {
        match key {
            TargetKey::Volume(_) => &self.data,
            TargetKey::Snapshot(_) => &self.snapshot_data,
        }
    }

    /// Whether the copy is a volume or a snapshot already.
    pub(crate) fn is_made(&self, target: &Target) -> Result<bool> {
        Ok(match target {
            Target::Volume(volume) => {
                let record = self.records.get(&volume.key)?;
                record.is_some_and(|record| record.volume.generation == volume.generation)
            }
            Target::Snapshot { key, generation, .. } => {
                let record = self.snapshots.get(key)?;
                record.is_some_and(|record| record.snapshot.generation == *generation && record.snapshot.ready)
            }
        })
    }

    /// Whether it is a snapshot that was deleted: one has its record before its job is worked on.
    fn is_deleted(&self, target: &Target) -> Result<bool> {
        let Target::Snapshot { key, generation, .. } = target else { return Ok(false) };
        let record = self.snapshots.get(key)?;
        Ok(record.is_none_or(|record| record.snapshot.generation != *generation))
    }

    /// Copies the tree of the job.
    fn copy(&self, attempt: &mut Attempt<'_, Attempts>) -> Result<()> {
        let name = attempt.job.target.key().to_string();
        let now = self.attempts()?;
        if attempt.job.extra != now {
            self.discard_unfinished(&name)?;
            (attempt.job.extra, attempt.job.done) = (now, Bytes::ZERO);
            attempt.keep()?;
        }
        let made =
            |folder: &Folder, name: &str| folder.folder_or_make(name, 0o700).map_err(folder.failed("make", name));
        let unfinished = made(&self.unfinished, &name)?;
        let (target, beside) = (made(&unfinished, TREE)?, made(&unfinished, BESIDE)?);
        let size = self.size(&attempt.job.target)?;
        if let Some(quota) = &self.quota {
            quota.assign_again(&target, size)?;
        }
        let source = self.source_tree(&attempt.job.source)?;
        let copy = TreeCopy { source: &source, target: &target, beside: &beside };
        let copied = copy.run(&mut |copied| {
            if self.quota.is_none() {
                // Nobody was promised anything.
                self.root.sizes()?.refuse_last(Bytes::ZERO)?;
            }
            attempt.reached(Bytes::new(copied.bytes))
        });
        copied.map_err(|error| match (error.kind(), &self.quota) {
            (ErrorKind::ResourceExhausted, Some(_)) => error.with("quota of the copy", size),
            _ => error,
        })
    }

    /// The size that is promised to a copy.
    fn size(&self, target: &Target) -> Result<Bytes> {
        match target {
            Target::Volume(volume) => Ok(volume.capacity),
            Target::Snapshot { key, .. } => {
                let record = self.snapshots.get(key)?;
                Ok(record
                    .ok_or_else(|| Error::internal(format!("the record of snapshot {key} is gone")))?
                    .snapshot
                    .size)
            }
        }
    }

    fn source_tree(&self, source: &SourceId) -> Result<Folder> {
        match source {
            SourceId::Volume(id) => self.open_data(&id.key),
            SourceId::Snapshot(id) => {
                let folder = &self.snapshot_data;
                folder.folder(id.key.as_str()).map_err(folder.failed("open", id.key.as_str()))
            }
        }
    }

    fn put_in_place(&self, key: &TargetKey) -> Result<()> {
        let (place, name) = (self.place(key), key.to_string());
        let unfinished = self.unfinished.folder(&name).map_err(self.unfinished.failed("open", &name))?;
        // Nothing that has this name is ever written over.
        let moved = rustix::fs::renameat_with(&unfinished, TREE, place, key.key(), RenameFlags::NOREPLACE);
        let moved = moved.map_err(io::Error::from).and_then(|()| place.sync()).and_then(|()| unfinished.sync());
        moved.map_err(place.failed("put the copy in its place", key.key()))
    }

    /// Whether the tree of the copy is not in its place.
    fn is_unfinished(&self, key: &TargetKey) -> Result<bool> {
        match self.unfinished.folder(key.to_string()) {
            Ok(folder) => folder.contains(TREE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.unfinished.failed("open", key.to_string())(error)),
        }
    }

    /// Has nothing of a whole copy in its place, so that all of it is among the unfinished.
    pub(crate) fn take_back(&self, key: &TargetKey) -> Result<()> {
        let (place, name) = (self.place(key), key.to_string());
        if self.is_unfinished(key)? || !place.contains(key.key())? {
            return Ok(());
        }
        let unfinished = self.unfinished.folder_or_make(&name, 0o700);
        let unfinished = unfinished.map_err(self.unfinished.failed("make", &name))?;
        let moved = place.rename(key.key(), &unfinished, TREE).and_then(|()| unfinished.sync());
        let moved = moved.and_then(|()| self.unfinished.sync()).and_then(|()| place.sync());
        moved.map_err(place.failed("take the copy back from its place", key.key()))
    }

    /// Makes a volume or a snapshot of the copy in its place.
    fn record(&self, target: &Target) -> Result<()> {
        let key = target.key();
        let open = || {
            let place = self.place(&key);
            place.folder(key.key()).map_err(place.failed("open", key.key()))
        };
        let project = self.quota.as_ref().map(|quota| quota.of(&open()?)).transpose()?.flatten();
        let extra = Extra { project };
        match target {
            Target::Volume(volume) => self.records.put(&Record { volume: volume.clone(), extra }),
            Target::Snapshot { key, .. } => {
                let record = self.snapshots.get(key)?;
                let mut record =
                    record.ok_or_else(|| Error::internal(format!("the record of snapshot {key} is gone")))?;
                (record.snapshot.ready, record.extra) = (true, extra);
                self.snapshots.put(record)
            }
        }
    }
}

impl Work<Attempts> for Parts {
    fn run(&self, attempt: &mut Attempt<'_, Attempts>) -> Result<()> {
        let key = attempt.job.target.key();
        if self.is_deleted(&attempt.job.target)? {
            // The removal of the snapshot was cut off behind its record.
            if attempt.job.whole {
                self.take_back(&key)?;
            }
        } else if !self.is_made(&attempt.job.target)? {
            if !attempt.job.whole {
                self.copy(attempt)?;
                attempt.job.whole = true;
                attempt.keep()?;
            }
            // An empty copy without a record would be taken for what a create left.
            let _making = match &key {
                TargetKey::Volume(key) => Some(self.records.making(key)),
                TargetKey::Snapshot(_) => None,
            };
            // What else has its place is somebody else's.
            if self.is_unfinished(&key)? || !self.place(&key).contains(key.key())? {
                self.put_in_place(&key)?;
            }
            self.record(&attempt.job.target)?;
        }
        self.discard_unfinished(&key.to_string())
    }
}
