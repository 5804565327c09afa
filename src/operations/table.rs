//! The table of running operations.

mod state;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::Error;
use tokio::sync::watch;
use tracing::Instrument;

use super::{Deadline, Failure, Keys, Refused, Request};
use state::{Admission, State};
pub use state::{OperationsCount, Running};

/// What the callers of one operation wait for.
type Answer<T> = watch::Receiver<Option<Result<T, Failure>>>;

/// The running operations of this process, each with the keys of what it touches. A clone is the same table.
///
/// Nobody waits for a key: who finds it held by the same request waits for that one's answer, everybody else is told
/// at once that it is busy. A key that all its holders share is busy only for who wants it alone.
#[derive(Clone, Default)]
pub struct Operations(Arc<Table>);

#[derive(Default)]
struct Table {
    state: Mutex<State>,
    /// How many are running; changed only while the state is locked.
    running: watch::Sender<usize>,
}

impl Operations {
    /// Runs `work` as a task of its own, with all of `keys` held until it has ended, and waits for its answer until
    /// `deadline`. Dropping this future ends the wait, never the work. While the same `request` holds the same keys,
    /// its answer is waited for instead, and `work` is dropped without having run.
    ///
    /// # Errors
    /// [`Failure::Busy`] where another request holds one of the keys, [`Failure::StillRunning`] at the deadline,
    /// [`Refused::Stopping`] after [`drain`](Self::drain), an internal error where the work panicked, else what it ends
    /// with.
    pub async fn run<T>(
        &self,
        keys: impl Into<Keys>,
        request: Request,
        deadline: Deadline,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Clone + Send + Sync + 'static,
    {
        let rpc = request.rpc();
        let (since, answer) = self.start_or_join(keys.into(), request, work)?;
        let ended = deadline.wait(wait_for(rpc, answer)).await;
        ended.unwrap_or_else(|| Err(Failure::StillRunning { rpc, running_for: since.elapsed() }))
    }

    /// Starts nothing new from now on, and waits up to `limit` for what is running. What runs can still be joined.
    /// Gives what is running after that.
    pub async fn drain(&self, limit: Duration) -> Vec<Running> {
        self.0.lock().stop();
        let mut running = self.0.running.subscribe();
        // At the limit, the list tells.
        let _ = tokio::time::timeout(limit, running.wait_for(|count| *count == 0)).await;
        self.running()
    }

    /// What is running, the oldest first.
    pub fn running(&self) -> Vec<Running> {
        self.0.lock().running()
    }

    /// Counters since the start of the process.
    pub fn count(&self) -> OperationsCount {
        self.0.lock().count()
    }

    fn start_or_join<T>(
        &self,
        keys: Keys,
        request: Request,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<(Instant, Answer<T>), Failure>
    where
        T: Clone + Send + Sync + 'static,
    {
        let rpc = request.rpc();
        let (sender, receiver) = watch::channel(None);
        let held = {
            let mut state = self.0.lock();
            match state.admit(keys, request, receiver.clone()) {
                Admission::Joined { since, answer } => return Ok((since, answer)),
                Admission::Busy(failure) => return Err(failure),
                Admission::Stopping => return Err(Refused::Stopping.into()),
                Admission::Started { id, since } => {
                    self.0.running.send_replace(state.len());
                    Held { table: Arc::clone(&self.0), id, rpc, since }
                }
            }
        };
        let since = held.since;
        tokio::spawn(carry_out(sender, held, work).in_current_span());
        Ok((since, receiver))
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of one operation, held. They are let go of when the work has ended, also by a panic.
struct Held {
    table: Arc<Table>,
    id: u64,
    rpc: &'static str,
    since: Instant,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        state.remove(self.id);
        self.table.running.send_replace(state.len());
    }
}

/// The task of one operation.
async fn carry_out<T>(
    sender: watch::Sender<Option<Result<T, Failure>>>,
    held: Held,
    work: impl Future<Output = Result<T, Failure>>,
) {
    let answer = work.await;
    let (rpc, since) = (held.rpc, held.since);
    // Before the answer: its reader's next call for the volume must not find this one.
    drop(held);
    if let Err(watch::error::SendError(Some(unheard))) = sender.send(Some(answer)) {
        let seconds = since.elapsed().as_secs_f64();
        match unheard {
            Ok(_) => tracing::info!(rpc, seconds, "operation ended after its callers had left"),
            Err(failure) => {
                tracing::warn!(rpc, seconds, error = failure.report(), "operation failed after its callers had left");
            }
        }
    }
}

async fn wait_for<T: Clone>(rpc: &'static str, mut answer: Answer<T>) -> Result<T, Failure> {
    let ended = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    ended.unwrap_or_else(|| {
        Err(Error::internal(format!("{rpc} ended without an answer: it panicked, the host's log says where")).into())
    })
}
