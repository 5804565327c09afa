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
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::driver::{FolderDriver, Folders};
use crate::capacity::Bytes;
use crate::copying::TargetKey;
use crate::error::{Error, Result};
use crate::root::{Attempt, Copied, Folder, Record, Target, TreeCopy, Work};
use crate::snapshot::SourceId;

const TREE: &str = "tree";
const BESIDE: &str = "beside";
/// How often a copy over the network asks whether it may go on: each question is a call to the server, as each step is.
const ASKED: Duration = Duration::from_secs(1);

pub(super) struct Worker<D>(pub(super) Arc<D>);

impl<D: FolderDriver> Worker<D> {
    fn folders(&self) -> &Folders<D::Extra> {
        self.0.folders()
    }

    /// Puts what there is of a copy into the trash.
    pub(super) fn discard_unfinished(&self, name: &str) -> Result<()> {
        let folders = self.folders();
        if let Ok(folder) = folders.unfinished.folder(name) {
            self.0.forget(&folder, TREE, None).map_err(folder.failed("free the quota of", TREE))?;
        }
        folders.root.trash().discard(&folders.unfinished, name)
    }

    /// Puts the folder of this name into the trash, of which this is known.
    pub(super) fn discard(&self, folder: &Folder, name: &str, known: Option<&D::Extra>) -> Result<()> {
        // What the file system knows first: of what has kept its data and its record it is set again when it is used.
        self.0.forget(folder, name, known).map_err(folder.failed("free the quota of", name))?;
        self.folders().root.trash().discard(folder, name)
    }

    /// Where a copy goes when it is whole.
    pub(super) fn place(&self, key: &TargetKey, plan: &D::Plan) -> Result<(Folder, String)> {
        match key {
            TargetKey::Volume(key) => self.0.place(key, plan),
            TargetKey::Snapshot(key) => {
                let folder = &self.folders().snapshot_data;
                let opened = folder.reopen().map_err(folder.failed("open", ""))?;
                Ok((opened, key.as_str().to_owned()))
            }
        }
    }

    /// Copies the tree of the job.
    fn copy(&self, attempt: &mut Attempt<'_, D::Plan>) -> Result<()> {
        let name = attempt.job.target.key().to_string();
        if let Some(plan) = self.0.plan_anew(&attempt.job.extra)? {
            self.discard_unfinished(&name)?;
            (attempt.job.extra, attempt.job.done) = (plan, Bytes::ZERO);
            attempt.keep()?;
        }
        let made =
            |folder: &Folder, name: &str| folder.folder_or_make(name, 0o700).map_err(folder.failed("make", name));
        let unfinished = made(&self.folders().unfinished, &name)?;
        let (target, beside) = (made(&unfinished, TREE)?, made(&unfinished, BESIDE)?);
        let size = self.folders().size(&attempt.job.target)?;
        self.0.prepare(&target, size)?;
        let source = self.source_tree(&attempt.job.source)?;
        let copy = TreeCopy { source: &source, target: &target, beside: &beside, over_network: D::OVER_NETWORK };
        let mut asked: Option<Instant> = None;
        let mut between_steps = |copied: Copied| {
            if !D::OVER_NETWORK || asked.is_none_or(|asked| asked.elapsed() >= ASKED) {
                self.0.may_change()?;
                self.0.has_room()?;
                asked = Some(Instant::now());
            }
            attempt.reached(Bytes::new(copied.bytes))
        };
        copy.run(&mut between_steps).map_err(|error| self.0.told(error, size))
    }

    fn source_tree(&self, source: &SourceId) -> Result<Folder> {
        match source {
            SourceId::Volume(id) => self.0.open(&id.key),
            SourceId::Snapshot(id) => {
                let folder = &self.folders().snapshot_data;
                folder.folder(id.key.as_str()).map_err(folder.failed("open", id.key.as_str()))
            }
        }
    }

    fn put_in_place(&self, key: &TargetKey, place: &Folder, place_name: &str) -> Result<()> {
        let (unfinished, name) = (&self.folders().unfinished, key.to_string());
        let unfinished = unfinished.folder(&name).map_err(unfinished.failed("open", &name))?;
        let moved = move_to_free(&unfinished, TREE, place, place_name);
        let moved = moved.and_then(|()| place.sync()).and_then(|()| unfinished.sync());
        moved.map_err(place.failed("put the copy in its place", place_name))
    }

    /// Whether the tree of the copy is not in its place.
    fn is_unfinished(&self, key: &TargetKey) -> Result<bool> {
        let unfinished = &self.folders().unfinished;
        match unfinished.folder(key.to_string()) {
            Ok(folder) => folder.contains(TREE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unfinished.failed("open", key.to_string())(error)),
        }
    }

    /// Has nothing of a whole copy in its place, so that all of it is among the unfinished.
    pub(super) fn take_back(&self, key: &TargetKey, plan: &D::Plan) -> Result<()> {
        let ((place, place_name), name) = (self.place(key, plan)?, key.to_string());
        if self.is_unfinished(key)? || !place.contains(&place_name)? {
            return Ok(());
        }
        let all = &self.folders().unfinished;
        let unfinished = all.folder_or_make(&name, 0o700).map_err(all.failed("make", &name))?;
        let moved = place.rename(&place_name, &unfinished, TREE).and_then(|()| unfinished.sync());
        let moved = moved.and_then(|()| all.sync()).and_then(|()| place.sync());
        moved.map_err(place.failed("take the copy back from its place", &place_name))
    }

    /// Makes a volume or a snapshot of the copy in its place.
    fn record(&self, target: &Target, extra: D::Extra) -> Result<()> {
        match target {
            Target::Volume(volume) => self.folders().records.put(&Record { volume: volume.clone(), extra }),
            Target::Snapshot { key, .. } => {
                let record = self.folders().snapshots.get(key)?;
                let mut record =
                    record.ok_or_else(|| Error::internal(format!("the record of snapshot {key} is gone")))?;
                (record.snapshot.ready, record.extra) = (true, extra);
                self.folders().snapshots.put(record)
            }
        }
    }

    /// Brings a whole copy to where it is a volume or a snapshot.
    fn finish(&self, target: &Target, plan: &D::Plan) -> Result<()> {
        let key = target.key();
        // An empty copy without a record would be taken for what a create left.
        let _making = match &key {
            TargetKey::Volume(key) => Some(self.folders().records.making(key)),
            TargetKey::Snapshot(_) => None,
        };
        self.0.may_change()?;
        let (place, name) = self.place(&key, plan)?;
        // What else has its place is somebody else's.
        if self.is_unfinished(&key)? || !place.contains(&name)? {
            self.put_in_place(&key, &place, &name)?;
        } else {
            // Whoever put it there may not have made it durable.
            place.sync().map_err(place.failed("sync", &name))?;
        }
        self.record(target, self.0.extra(&place, &name, plan)?)
    }
}

/// Moves an entry to where nothing may be: nothing that has this name is ever written over.
fn move_to_free(from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // A file system of a server cannot refuse that in one step. The place is this process's alone, and no rename goes
        // over a folder that has anything in it.
        Err(Errno::INVAL | Errno::NOSYS) => match to.stat(new_name) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => from.rename(name, to, new_name),
            Err(error) => Err(error),
        },
        moved => Ok(moved?),
    }
}

impl<D: FolderDriver> Work<D::Plan> for Worker<D> {
    fn run(&self, attempt: &mut Attempt<'_, D::Plan>) -> Result<()> {
        self.0.may_change()?;
        let key = attempt.job.target.key();
        if self.folders().is_deleted(&attempt.job.target)? {
            // The removal of the snapshot was cut off behind its record.
            if attempt.job.whole {
                self.take_back(&key, &attempt.job.extra)?;
            }
        } else if !self.folders().is_made(&attempt.job.target)? {
            if !attempt.job.whole {
                self.copy(attempt)?;
                self.0.may_change()?;
                attempt.job.whole = true;
                attempt.keep()?;
            }
            self.finish(&attempt.job.target, &attempt.job.extra)?;
        }
        self.discard_unfinished(&key.to_string())
    }
}
