//! The threads that work on jobs: a few, there only while there is work.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::Job;
use super::table::Next;
use super::{Shared, Work};
use crate::capacity::Bytes;
use crate::copying::TargetKey;
use crate::error::{Error, Result};

/// How often the progress of a copy is logged.
const TOLD: Duration = Duration::from_secs(30);

/// One attempt to do what is left of a job.
pub struct Attempt<'a, E> {
    shared: &'a Shared<E>,
    key: TargetKey,
    /// The job; what is changed here is kept by [`keep`](Self::keep).
    pub job: Job<E>,
    told: Instant,
}

impl<E: Serialize + DeserializeOwned + Clone> Attempt<'_, E> {
    /// Says how far it is, for people to see. Ask it between any two steps, also with what it was told last: it answers
    /// an error where the work is to end, which is passed on.
    ///
    /// # Errors
    /// Where the job was stopped, or the root is being closed.
    pub fn reached(&mut self, done: Bytes) -> Result<()> {
        let mut table = self.shared.lock();
        if table.is_stopped(&self.key) {
            return Err(Error::internal("the copy was stopped"));
        }
        if let Some(entry) = table.entries.get_mut(&self.key) {
            // A driver may only guess how much there is.
            (entry.done, entry.total) = (done, self.job.total.max(done));
            if done > entry.furthest {
                // It gets on, past where the attempt before failed.
                (entry.furthest, entry.error) = (done, None);
            }
            if self.told.elapsed() >= TOLD {
                self.told = Instant::now();
                let progress = entry.progress();
                drop(table);
                let (root, target) = (self.shared.root.display(), &self.key);
                tracing::info!(%root, %target, done = done.get(), total = progress.total.get(), "copying");
            }
        }
        Ok(())
    }

    /// Makes durable what the job says now, and with it how far it is: what was copied until there must be durable
    /// already. An attempt after this one begins there. Once it says that the copy is [whole](Job::whole) its source is let
    /// go.
    ///
    /// # Errors
    /// Where it cannot be written; the job is then as it was.
    pub fn keep(&mut self) -> Result<()> {
        self.reached(self.job.done)?;
        self.shared.write(&self.job)?;
        if let Some(entry) = self.shared.lock().entries.get_mut(&self.key) {
            entry.job = self.job.clone();
            (entry.error, entry.failures) = (None, 0);
        }
        Ok(())
    }
}

/// Works on what is due, until there is nothing more or the root is closed. Dropping `_end`, after the lock in `shared`,
/// tells that it ended.
pub(super) fn run<E>(_end: Sender<Infallible>, shared: Arc<Shared<E>>)
where
    E: Serialize + DeserializeOwned + Clone,
{
    let Some(work) = shared.work.get() else { return };
    while let Some(job) = next(&shared) {
        attempt(&shared, work.as_ref(), job);
    }
}

fn next<E: Clone>(shared: &Shared<E>) -> Option<Job<E>> {
    let mut table = shared.lock();
    loop {
        table = match table.next() {
            Next::Work(job) => return Some(*job),
            Next::Wait(pause) => shared.changed.wait_timeout(table, pause).unwrap_or_else(PoisonError::into_inner).0,
            Next::Nothing => {
                table.threads -= 1;
                return None;
            }
        };
    }
}

fn attempt<E>(shared: &Shared<E>, work: &dyn Work<E>, job: Job<E>)
where
    E: Serialize + DeserializeOwned + Clone,
{
    let (key, began) = (job.target.key(), Instant::now());
    let root = shared.root.display();
    let (source, done, total) = (&job.source, job.done.get(), job.total.get());
    tracing::info!(%root, target = %key, %source, done, total, "begins to copy");
    let mut attempt = Attempt { shared, key: key.clone(), job, told: began };
    let panicked = |_| Err(Error::internal("the copy panicked: see the log"));
    let run =
        |attempt: &mut Attempt<'_, E>| catch_unwind(AssertUnwindSafe(|| work.run(attempt))).unwrap_or_else(panicked);
    let ended = shared.settle(&attempt.job).and_then(|()| run(&mut attempt)).and_then(|()| shared.unlink(&key));
    let mut table = shared.lock();
    match ended {
        Ok(()) => {
            table.entries.remove(&key);
            drop(table);
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(%root, target = %key, bytes = total - done, seconds, "copied");
        }
        Err(error) => {
            let closing = table.closing;
            let report = error.report();
            let again = table.entries.get_mut(&key).and_then(|entry| entry.failed(error));
            if let Some(again) = again.filter(|_| !closing) {
                table.failed += 1;
                drop(table);
                let seconds = again.as_secs();
                tracing::warn!(%root, target = %key, error = report, again_in_seconds = seconds, "cannot copy, will try again");
            }
        }
    }
    shared.changed.notify_all();
}
