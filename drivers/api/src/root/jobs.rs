//! Copies that take long: jobs of a root, each with a small record, `<root>/.dunnage/jobs/{volume,snapshot}.<key>`.
//!
//! A job is durable before its first byte is copied, and its record goes when the last is in its place. In between it
//! says how far the copy is durable, so that whoever opens the root next goes on from there. Until it says that the copy
//! is whole its source stays as it is: the driver refuses what would change it, by [`Jobs::refuse_volume`] and
//! [`Jobs::refuse_snapshot`].
//!
//! - **Begin**: [`Jobs::begin`] writes the record. From then on the source is refused, and the driver can look whether
//!   it is in use without anybody beginning to use it meanwhile. What the driver writes beside it (the record of a
//!   snapshot) comes next, [`Begun::start`] last. One that is dropped before is no job.
//! - **Work**: a thread of this root, one of a few, calls the driver's [`Work`]; one that fails is tried again, later
//!   each time. Once the copy is whole it says so, and then does whatever makes it a volume or a snapshot: whoever sees
//!   that finds the source free. It may be called again after that.
//! - **End**: the record is removed. A driver that removes the copy first [stops](Jobs::stop) the job.

mod begun;
mod job;
mod runner;
mod table;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use begun::Begun;
pub use job::{Job, Target};
pub use runner::Attempt;
use table::{Entry, Phase, Table, Until};

use super::folder::Folder;
use super::record::LARGEST;
use super::{Lock, nonce};
use crate::capacity::Bytes;
use crate::copying::{CopyProgress, Copying, TargetKey};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Generation, SnapshotKey, VolumeKey};

/// How many jobs of a root are worked on at once: a disk is not faster for more, and others use it too.
const THREADS: usize = 2;
/// The part of a backend's threads on which calls may wait for jobs at once: other calls need the rest.
const WAITING: usize = 4;
/// How many wait at the most, of however many threads.
const ENOUGH: usize = 4;
/// How long a call waits for a job at the most: the host takes one that is longer away for stuck in the kernel.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long before the deadline a call answers, so that the answer is still of use.
const MARGIN: Duration = Duration::from_millis(100);
/// How long the end of the backend waits for the threads: more than one step on a file system that lives.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a driver does for its jobs, on threads of the root's own.
pub trait Work<E>: Send + Sync {
    /// Does what is left of the job, to its very end: when this returns, the copy is a volume or a snapshot, durably. Is
    /// called again, from the start or from where the job was [kept](Attempt::keep), after an error and after a kill, also
    /// one after the last step.
    ///
    /// # Errors
    /// Why it cannot be done now: it is tried again.
    fn run(&self, attempt: &mut Attempt<'_, E>) -> Result<()>;
}

/// The jobs of a root. When it is dropped its threads stop.
pub struct Jobs<E> {
    shared: Arc<Shared<E>>,
    /// Each thread has a clone.
    end: Option<Sender<Infallible>>,
    ended: Mutex<Receiver<Infallible>>,
}

pub(super) struct Shared<E> {
    folder: Folder,
    /// Where the root is, for the log.
    root: PathBuf,
    /// Tells this process's unfinished files from those of one that was killed.
    temporary: String,
    table: Mutex<Table<E>>,
    changed: Condvar,
    /// How many calls may wait at once.
    may_wait: usize,
    work: OnceLock<Arc<dyn Work<E>>>,
    _lock: Lock,
}

impl<E: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Jobs<E> {
    /// Reads the jobs in `folder`. None is worked on before [`take_up`](Self::take_up). One that is broken is left alone
    /// and logged: nobody will go on with it, and it must not keep the volumes from being served. One of a later release
    /// is another matter: that would go on with it, and its source may not change until then.
    pub(super) fn new(folder: Folder, root: &Path, lock: Lock, threads: usize) -> Result<Self> {
        folder.sync().map_err(folder.failed("sync", ""))?;
        let failed = |error| folder.failed("list", "")(error);
        let (mut entries, mut text) = (BTreeMap::new(), Vec::new());
        for entry in folder.entries().map_err(failed)? {
            let (name, _) = entry.map_err(failed)?;
            if name.as_encoded_bytes().starts_with(b".") {
                // Of a write that was cut off. Best effort: the next start tries again.
                let _ = folder.unlink(&name);
                continue;
            }
            let Some(key) = name.to_str().and_then(|name| name.parse::<TargetKey>().ok()) else {
                tracing::warn!(?name, "a file among the jobs is not one");
                continue;
            };
            let read = folder.read(&name, &mut text, LARGEST).map_err(folder.failed("read the job", &name));
            match read.and_then(|()| job::decode(&text, &key, folder.path())) {
                Ok(job) => drop(entries.insert(key, Entry::new(job))),
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => return Err(error),
                Err(error) => tracing::error!(error = error.report(), "a copy is not gone on with"),
            }
        }
        let table = Mutex::new(Table { entries, ..Table::default() });
        let shared = Shared {
            folder,
            root: root.to_owned(),
            temporary: format!(".{}.", nonce()?),
            table,
            changed: Condvar::new(),
            may_wait: ENOUGH.min(threads / WAITING),
            work: OnceLock::new(),
            _lock: lock,
        };
        let (end, ended) = channel();
        Ok(Self { shared: Arc::new(shared), end: Some(end), ended: Mutex::new(ended) })
    }

    /// All jobs there are, in the order of their keys.
    pub fn all(&self) -> Vec<Job<E>> {
        self.shared.lock().entries.values().map(|entry| entry.job.clone()).collect()
    }

    /// The job of this key, as it is on disk.
    pub fn get(&self, key: &TargetKey) -> Option<Job<E>> {
        self.shared.lock().entries.get(key).map(|entry| entry.job.clone())
    }

    /// Whether a job makes this generation of a volume.
    pub fn makes(&self, key: &VolumeKey, generation: &Generation) -> bool {
        let job = self.get(&TargetKey::Volume(key.clone()));
        job.is_some_and(|job| matches!(&job.target, Target::Volume(volume) if volume.generation == *generation))
    }

    /// Begins to work, first on the jobs that are there: those that are not to be gone on with were
    /// [removed](Self::remove) before. Once for each opened root.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn take_up(&self, work: Arc<dyn Work<E>>) -> Result<()> {
        if self.shared.work.set(work).is_err() {
            return Err(Error::internal("the jobs of a root were taken up twice"));
        }
        let mut table = self.shared.lock();
        for entry in table.entries.values_mut() {
            entry.phase = Phase::Due(Instant::now());
        }
        self.see_to_threads(table)
    }

    /// Writes the record of a new job; durable when it returns. From the first moment the source is refused.
    ///
    /// # Errors
    /// Where there is a job of this key, unless that is one that was never started; or it cannot be written.
    pub fn begin(&self, job: Job<E>) -> Result<Begun<'_, E>> {
        let key = job.target.key();
        {
            let mut table = self.shared.lock();
            if table.entries.get(&key).is_some_and(|entry| !entry.is_left) {
                return Err(Error::precondition(format!("{key} is being copied already")).retry(true));
            }
            table.entries.insert(key.clone(), Entry::new(job.clone()));
        }
        // Dropped where the write fails, it takes the entry out again.
        let begun = Begun::new(self, key);
        self.shared.write(&job)?;
        Ok(begun)
    }

    /// Waits until the job has ended, for at most a few seconds. Succeeds where there is none.
    ///
    /// # Errors
    /// [`Running`](ErrorKind::Running) just before the deadline, or at once where enough calls wait already: how far it is.
    /// Otherwise why the last attempt failed, where nobody works on it just now: there will be another one, unless the job
    /// is stopped and removed.
    pub fn wait(&self, key: &TargetKey, deadline: Instant) -> Result<()> {
        let until = deadline.checked_sub(MARGIN).unwrap_or(deadline).min(Instant::now() + PATIENCE);
        let mut table = self.shared.lock();
        let may_wait = table.waiting < self.shared.may_wait;
        table.waiting += 1;
        let answer = loop {
            let Some(entry) = table.entries.get(key) else { break Ok(()) };
            // What became of the attempt before says nothing of the one that is made now.
            if let Some(error) = entry.error.as_ref().filter(|_| !matches!(entry.phase, Phase::Running(_))) {
                break Err(error.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !may_wait {
                break Err(entry.running());
            }
            table = self.shared.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        table.waiting -= 1;
        answer
    }

    /// Stops the job: when this returns nobody works on it, nor will before the root is opened again. Its record stays,
    /// and its source is held, until it is [removed](Self::remove). `None` where there is none.
    ///
    /// # Errors
    /// [`Running`](ErrorKind::Running) where the step that it is in does not end before the deadline: it is gone on with
    /// then, until somebody stops it again.
    pub fn stop(&self, key: &TargetKey, deadline: Instant) -> Result<Option<Job<E>>> {
        let until = deadline.min(Instant::now() + PATIENCE);
        let mut table = self.shared.lock();
        loop {
            let Some(entry) = table.entries.get_mut(key) else { return Ok(None) };
            let Phase::Running(end) = &mut entry.phase else {
                entry.phase = Phase::Idle;
                return Ok(Some(entry.job.clone()));
            };
            *end = Until::Stopped;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *end = Until::Interrupted;
                let message = format!("{} is to be stopped, and its file system does not answer", entry.progress());
                return Err(Error::new(ErrorKind::Running, message));
            }
            table = self.shared.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has a job worked on again that was stopped, as one is whose removal failed halfway. Succeeds where there is none.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn go_on(&self, key: &TargetKey) -> Result<()> {
        let mut table = self.shared.lock();
        if let Some(entry) = table.entries.get_mut(key).filter(|entry| entry.phase == Phase::Idle) {
            (entry.phase, entry.is_left) = (Phase::Due(Instant::now()), false);
        }
        self.see_to_threads(table)
    }

    /// Removes the record of a job that nobody works on; durable when it returns. Succeeds where there is none.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, key: &TargetKey) -> Result<()> {
        self.shared.unlink(key)?;
        self.shared.lock().entries.remove(key);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Refuses what would change, remove or bring into use a volume that is being copied.
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition) that names what is copied from it, and how far that is.
    pub fn refuse_volume(&self, key: &VolumeKey) -> Result<()> {
        self.refuse("volume", |job| job.needs_volume(key)).map_err(|error| error.with("volume", key))
    }

    /// Refuses what would remove a snapshot that is being copied.
    ///
    /// # Errors
    /// As [`refuse_volume`](Self::refuse_volume).
    pub fn refuse_snapshot(&self, key: &SnapshotKey) -> Result<()> {
        self.refuse("snapshot", |job| job.needs_snapshot(key)).map_err(|error| error.with("snapshot", key))
    }

    fn refuse(&self, what: &str, needs: impl Fn(&Job<E>) -> bool) -> Result<()> {
        let table = self.shared.lock();
        let Some(entry) = table.entries.values().find(|entry| needs(&entry.job)) else { return Ok(()) };
        let progress = entry.progress();
        let (fails, advice) = match &progress.error {
            Some(error) => (format!(", and fails: {}", error.report()), "mend what keeps the copy, or delete the copy"),
            None => (String::new(), "wait, or delete the copy"),
        };
        let message =
            format!("the {what} is being copied to {progress}{fails}: it stays as it is until that is whole; {advice}");
        Err(Error::precondition(message).retry(true))
    }

    /// The sizes of the volumes that are being made, added up: they have no record yet.
    pub fn promised(&self) -> Bytes {
        let table = self.shared.lock();
        let sizes = table.entries.values().filter_map(|entry| match &entry.job.target {
            Target::Volume(volume) => Some(volume.capacity),
            Target::Snapshot { .. } => None,
        });
        sizes.fold(Bytes::ZERO, Bytes::plus)
    }

    /// Starts a thread where there are fewer than there is work for.
    fn see_to_threads(&self, mut table: MutexGuard<'_, Table<E>>) -> Result<()> {
        while table.threads < THREADS.min(table.busy()) {
            let Some(end) = self.end.clone() else { break };
            let shared = self.shared.clone();
            std::thread::Builder::new()
                .name("copies".into())
                .spawn(move || runner::run(end, shared))
                .map_err(|error| Error::io("cannot start the thread that copies", error))?;
            table.threads += 1;
        }
        drop(table);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, Table<E>> {
        // Every change is whole before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a record, durably.
    fn unlink(&self, key: &TargetKey) -> Result<()> {
        let failed = |error| self.folder.failed("remove the job", key.to_string())(error);
        match self.folder.unlink(key.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => self.folder.sync().map_err(failed),
        }
    }
}

impl<E: Serialize> Shared<E> {
    /// Writes a record, over the one that is there; durable when it returns. After an error either may be on the disk, which
    /// is [made good](Self::settle) before anybody works on the job.
    fn write(&self, job: &Job<E>) -> Result<()> {
        let written = self.replace(job);
        if let Some(entry) = self.lock().entries.get_mut(&job.target.key()) {
            entry.doubtful = written.is_err();
        }
        written
    }

    /// Has the disk say of a job what is known of it here: what is copied from now on makes anything else untrue.
    fn settle(&self, job: &Job<E>) -> Result<()> {
        let doubtful = self.lock().entries.get(&job.target.key()).is_some_and(|entry| entry.doubtful);
        if doubtful { self.write(job) } else { Ok(()) }
    }

    fn replace(&self, job: &Job<E>) -> Result<()> {
        let name = job.target.key().to_string();
        let text = job::encode(job)?;
        let temporary = format!("{}{name}", self.temporary);
        let failed = |error| self.folder.failed("write the job", &name)(error);
        self.folder.write(&temporary, &text).map_err(failed)?;
        if let Err(error) = self.folder.rename(&temporary, &self.folder, &name) {
            // Where this fails too, the next start removes it.
            let _ = self.folder.unlink(&temporary);
            return Err(failed(error));
        }
        self.folder.sync().map_err(failed)
    }
}

impl<E: Send + Sync> Copying for Jobs<E> {
    fn copies(&self) -> Vec<CopyProgress> {
        self.shared.lock().entries.values().map(Entry::progress).collect()
    }

    fn failed_attempts(&self) -> u64 {
        self.shared.lock().failed
    }
}

impl<E> Drop for Jobs<E> {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        self.end = None;
        // On a file system that hangs a thread cannot end, and nobody may wait for it.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(FAREWELL);
    }
}

#[cfg(test)]
mod tests;
