//! The threads of one backend, on which whatever may block in the kernel runs.

mod job;
mod pool;
#[cfg(test)]
mod tests;
mod thread;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::{BackendName, Error, SnapshotKey, VolumeKey};
use tokio::sync::oneshot;

use super::Failure;
use job::Task;
use pool::Pool;
pub use pool::WorkersCount;

/// How many threads a backend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersOptions {
    /// How many work at once, those that are stuck not counted. At least 1.
    pub threads: usize,
    /// How many there may be, with those that are stuck. At least `threads`.
    pub total: usize,
    /// How long a thread may be in one call before it counts as stuck.
    pub stuck_after: Duration,
    /// How long a thread waits for work before it ends.
    pub idle: Duration,
}

impl Default for WorkersOptions {
    fn default() -> Self {
        Self { threads: 16, total: 64, stuck_after: Duration::from_secs(30), idle: Duration::from_secs(10) }
    }
}

/// Calls that run one after the other. Those that read a volume never wait for those that change it, nor the other way
/// round: a volume whose statistics hang must still be taken away, which may be the only thing that frees them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The calls that change a volume.
    Changes(VolumeKey),
    /// The calls that only read it.
    Reads(VolumeKey),
    /// The calls that change a snapshot, and no volume.
    ChangesOfSnapshot(SnapshotKey),
    /// The calls that only read it.
    ReadsOfSnapshot(SnapshotKey),
}

impl Lane {
    fn volume(&self) -> Option<&str> {
        match self {
            Self::Changes(volume) | Self::Reads(volume) => Some(volume.as_str()),
            Self::ChangesOfSnapshot(_) | Self::ReadsOfSnapshot(_) => None,
        }
    }

    fn snapshot(&self) -> Option<&str> {
        match self {
            Self::ChangesOfSnapshot(snapshot) | Self::ReadsOfSnapshot(snapshot) => Some(snapshot.as_str()),
            Self::Changes(_) | Self::Reads(_) => None,
        }
    }
}

/// Whose calls they are.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes(volume) | Self::Reads(volume) => write!(f, "volume {volume}"),
            Self::ChangesOfSnapshot(snapshot) | Self::ReadsOfSnapshot(snapshot) => write!(f, "snapshot {snapshot}"),
        }
    }
}

/// The threads of one backend: started as they are needed, at most so many, and nobody else's.
///
/// A thread that is in one call for longer than [`stuck_after`](WorkersOptions::stuck_after) is stuck: another one takes
/// its place, and it works on for this backend if it ever comes back. The calls of one [`Lane`] run one at a time, so
/// that a volume never has more than one stuck thread that changes it and one that reads it; those behind it are
/// refused. Calls for no volume run side by side, and are refused while one of them is stuck: what asks a dead store
/// every minute must not use the threads up. When all the threads that there may be are stuck, every call is refused.
pub struct Workers(Arc<Shared>);

struct Shared {
    backend: BackendName,
    pool: Mutex<Pool>,
    work: Condvar,
}

impl Workers {
    /// The threads of `backend`, which give their name to the kernel (its first 15 bytes). None is started yet.
    pub fn new(backend: BackendName, options: WorkersOptions) -> Self {
        let pool = Mutex::new(Pool::new(backend.clone(), options));
        Self(Arc::new(Shared { backend, pool, work: Condvar::new() }))
    }

    /// Runs `work` on a thread of this backend, in the lane of its volume if it is for one, and waits for what it gives.
    /// If this future is dropped before a thread has taken the work up, it is never run; after that it runs to its end.
    ///
    /// # Errors
    /// [`Failure::Refused`] where the work was not started, an internal error where it panicked, else its own error.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Option<Lane>,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let (task, answer) = Task::new(work);
        self.0.submit(lane, Box::new(task))?;
        // A task always answers; without a sender the pool itself has gone, and that is dropped after this future.
        answer.await.unwrap_or_else(|oneshot::error::RecvError { .. }| {
            Err(Error::internal(format!("a call on the threads of backend {} was lost", self.0.backend)).into())
        })
    }

    /// How the threads are used.
    pub fn count(&self) -> WorkersCount {
        self.0.lock().count()
    }
}

/// Idle threads end; those that are at work end after it. Nobody waits for them.
impl Drop for Workers {
    fn drop(&mut self) {
        self.0.lock().close();
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, lane: Option<Lane>, job: Box<dyn job::Job>) -> Result<(), Failure> {
        let mut pool = self.lock();
        pool.admit(lane, job)?;
        let watch = pool.start_watch();
        self.staff(pool);
        if watch {
            tokio::spawn(thread::watch(Arc::clone(self)));
        }
        Ok(())
    }

    /// Wakes or starts the thread that the first of the waiting calls needs.
    fn staff(self: &Arc<Self>, mut pool: MutexGuard<'_, Pool>) {
        let start = pool.take_place();
        let wake = !start && pool.can_wake();
        drop(pool);
        if wake {
            self.work.notify_one();
        }
        if start && let Err(error) = thread::start(self) {
            let refused = self.lock().give_up_place(&error);
            refused.into_iter().for_each(job::Rejected::answer);
        }
    }

    /// Writes off the threads that are stuck by now; gives when to look again, or `None` where nothing is at work.
    fn sweep(self: &Arc<Self>) -> Option<Instant> {
        let swept = self.lock().sweep(Instant::now());
        for (lane, seconds) in swept.stuck {
            let (backend, volume) = (self.backend.as_str(), lane.as_ref().and_then(Lane::volume));
            let snapshot = lane.as_ref().and_then(Lane::snapshot);
            tracing::warn!(
                backend,
                volume,
                snapshot,
                seconds,
                "a call hangs: its thread is written off until it comes back"
            );
        }
        swept.refused.into_iter().for_each(job::Rejected::answer);
        for _ in 0..swept.places {
            self.staff(self.lock());
        }
        swept.next
    }
}
