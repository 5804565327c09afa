//! Snapshots, restores and clones of volumes that are folders, as calls: they begin a copy, or find the one that was begun
//! before, and wait for it.
//!
//! A snapshot is there when the whole copy is. It has each file as it was at some moment since the call began: `created` is
//! the beginning, since all that was written before is in it.

mod driver;
mod ends;
mod snapshots;
mod work;

use std::sync::Arc;

pub use driver::{FolderDriver, Folders};
use work::Worker;

use super::{Folder, Job, Jobs, SnapshotRecord, Target};
use crate::capacity::Bytes;
use crate::context::Context;
use crate::copying::{Copying, TargetKey};
use crate::error::{Error, ErrorKind, Result};
use crate::id::VolumeKey;
use crate::snapshot::SourceId;
use crate::volume::{CreateVolume, Volume};

/// The copies of a root whose volumes and snapshots are folders. They are jobs of the root: when this is dropped their
/// threads stop, and who opens the root next goes on with them.
pub struct FolderCopies<D: FolderDriver> {
    driver: Arc<D>,
    jobs: Arc<Jobs<D::Plan>>,
    worker: Arc<Worker<D>>,
}

impl<D: FolderDriver> FolderCopies<D> {
    /// Goes on with the copies that an ended process had begun, and removes what belongs to none. Once for each opened
    /// root. The backend has so many `threads`, as [`Root::jobs`](super::Root::jobs) wants to know.
    ///
    /// # Errors
    /// Where the folders cannot be read or changed.
    pub fn open(driver: Arc<D>, threads: usize) -> Result<Self> {
        let jobs = Arc::new(driver.folders().root.jobs(threads)?);
        let worker = Arc::new(Worker(driver.clone()));
        let copies = Self { driver, jobs, worker };
        copies.take_up()?;
        Ok(copies)
    }

    fn folders(&self) -> &Folders<D::Extra> {
        self.driver.folders()
    }

    fn take_up(&self) -> Result<()> {
        let folders = self.folders();
        for Job { target, extra, .. } in self.jobs.all() {
            // One that was cut off before its record was written was never a snapshot, nor is it one that is wanted.
            let (key, generation) = match &target {
                Target::Snapshot { key, generation, .. } => (key, generation),
                Target::Volume(volume) => {
                    self.driver.hold(&volume.key, &extra);
                    continue;
                }
            };
            let is_of = |record: SnapshotRecord<D::Extra>| record.snapshot.generation == *generation;
            match folders.snapshots.get(key).map(|record| record.is_some_and(is_of)) {
                Ok(true) => {}
                Ok(false) => self.log(&target.key(), "cannot remove a copy in vain", self.jobs.remove(&target.key())),
                Err(error) => {
                    self.log(&target.key(), "cannot find out whether a copy is to be gone on with", Err(error));
                }
            }
        }
        let unfinished = &folders.unfinished;
        for entry in unfinished.entries().map_err(unfinished.failed("list", ""))? {
            let (name, _) = entry.map_err(unfinished.failed("list", ""))?;
            match name.to_str() {
                Some(name) if name.parse().is_ok_and(|key| self.jobs.get(&key).is_some()) => {}
                Some(text) => self.log(&text, "cannot discard what no copy has", self.worker.discard_unfinished(text)),
                None => {
                    let discarded = folders.root.trash().discard(unfinished, &name);
                    self.log(&name.display(), "cannot discard what no copy has", discarded);
                }
            }
        }
        self.jobs.take_up(self.worker.clone())
    }

    /// What becomes of one copy must not keep the others from being served. Whoever works on it meets the same error.
    fn log(&self, target: &dyn std::fmt::Display, what: &str, done: Result<()>) {
        if let Err(error) = done {
            let root = self.folders().root.folder().path().display();
            tracing::error!(%root, %target, error = error.report(), "{what}");
        }
    }

    /// What is being copied, for people to see.
    pub fn copying(&self) -> Arc<dyn Copying> {
        self.jobs.clone()
    }

    /// Whether a copy is to be the volume of this key: what lies in its place is that copy's, also while it has no record.
    pub fn makes(&self, key: &VolumeKey) -> bool {
        self.jobs.get(&TargetKey::Volume(key.clone())).is_some()
    }

    /// The sizes of the volumes that are being made, added up: they have no record yet.
    pub fn promised(&self) -> Bytes {
        self.jobs.promised()
    }

    /// Whether the request is for [`create`](Self::create), and not for an empty volume.
    pub fn is_for(&self, request: &CreateVolume) -> bool {
        request.content.is_some() || self.makes(&request.key)
    }

    /// Makes a volume that holds what another or a snapshot holds.
    ///
    /// # Errors
    /// [`Running`](ErrorKind::Running) while the copy goes on; [`AlreadyExists`](ErrorKind::AlreadyExists) where it is
    /// another that has the name. Where the copy failed it is given up, and the error tells why.
    pub fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        let key = TargetKey::Volume(request.key.clone());
        let made = || Ok(self.folders().records.get(&request.key)?.map(|record| record.volume));
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

    /// That there is no volume of the key that is to be made, which the caller [holds](super::Records::making). A copy may
    /// have become one since the host looked: what it is nobody has checked against the request.
    ///
    /// # Errors
    /// [`Running`](ErrorKind::Running) where there is one.
    pub fn refuse_made(&self, request: &CreateVolume) -> Result<()> {
        if self.folders().records.get(&request.key)?.is_none() {
            return Ok(());
        }
        let message = "a copy to a volume of this name has just ended: the same call repeated finds it";
        Err(Error::new(ErrorKind::Running, message).with("name", &request.name))
    }

    fn begin_volume(&self, request: &CreateVolume) -> Result<()> {
        let source = request.source.clone().ok_or_else(|| Error::internal("a copy of nothing was asked for"))?;
        self.driver.may_copy()?;
        let plan = self.driver.plan(Some(request))?;
        let volume = request.volume(self.driver.size(request)?)?;
        // Let go of before anybody waits: whoever ends the copy holds the key too.
        let _making = self.folders().records.making(&request.key);
        self.refuse_made(request)?;
        self.driver.take(&request.key, &plan)?;
        let begun = self.begin_taken(volume, source, &plan);
        if begun.is_err() && !self.makes(&request.key) {
            self.driver.let_go(&request.key, &plan);
        }
        begun
    }

    fn begin_taken(&self, volume: Volume, source: SourceId, plan: &D::Plan) -> Result<()> {
        let key = TargetKey::Volume(volume.key.clone());
        let (place, name) = self.worker.place(&key, plan)?;
        refuse_data(&place, &name)?;
        // Of a copy before this one, given up: this one would go on with it.
        self.worker.discard_unfinished(&key.to_string())?;
        let room = self.driver.reserve(volume.capacity, self.promised())?;
        let total = self.used(&source)?;
        let begun = self.jobs.begin(Job::new(Target::Volume(volume), source, total, plan.clone()))?;
        // The job speaks for it now.
        drop(room);
        begun.start()
    }

    /// How much there is to copy, as far as that is known. From a source that is another by now nothing is copied.
    fn used(&self, source: &SourceId) -> Result<Bytes> {
        let folders = self.folders();
        let (extra, size) = match source {
            SourceId::Volume(id) => {
                let record = folders.records.get(&id.key)?.filter(|record| record.volume.generation == id.generation);
                let record = record.map(|record| (record.extra, record.volume.capacity));
                record.ok_or_else(|| Error::not_found(format!("volume {id} is gone")))?
            }
            SourceId::Snapshot(id) => {
                let record =
                    folders.snapshots.get(&id.key)?.filter(|record| record.snapshot.generation == id.generation);
                let record = record.map(|record| (record.extra, record.snapshot.size));
                record.ok_or_else(|| Error::not_found(format!("snapshot {id} is gone")))?
            }
        };
        Ok(self.driver.used(&extra)?.unwrap_or(size))
    }

    /// Waits for a copy. One that fails while somebody waits for it is given up: the caller is told, and may begin another.
    fn wait<T>(&self, cx: &Context, key: &TargetKey, made: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let gone = || Error::internal(format!("the copy to {key} was given up")).retry(true);
        // Nobody works on one that could neither be started nor removed.
        self.jobs.go_on(key)?;
        match self.jobs.wait(key, cx.deadline) {
            Ok(()) => made()?.ok_or_else(gone),
            Err(error) if error.kind() == ErrorKind::Running => Err(error),
            Err(error) if self.driver.is_passing(&error) => {
                let message = format!("the copy to {key} goes on when its store is back: repeat the same call");
                Err(Error::new(ErrorKind::Running, message).caused_by(error))
            }
            Err(error) => {
                self.give_up(cx, key)?;
                // Its last step may have been all that failed.
                made()?.ok_or(error)
            }
        }
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
fn refuse_data(folder: &Folder, name: &str) -> Result<()> {
    if folder.contains(name)? {
        return Err(Error::precondition(format!(
            "{} has data and no record, so it is nobody's: restore the record, or move it away",
            folder.path().join(name).display()
        )));
    }
    Ok(())
}
