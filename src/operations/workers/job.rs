//! One call on its way through the threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dunnage_driver_api::Error;
use tokio::sync::oneshot;

use crate::operations::{Failure, Refused};

/// A call, whatever it gives.
pub(super) trait Job: Send {
    /// Does the work, unless nobody waits for it any more.
    fn run(&mut self);

    /// Hands over what `run` gave.
    fn answer(self: Box<Self>);

    /// Says that it will not be run.
    fn refuse(self: Box<Self>, why: Refused);
}

/// A call that was let in and then refused. To be answered when the pool is unlocked: dropping the work may take time.
pub(super) struct Rejected {
    pub(super) job: Box<dyn Job>,
    pub(super) why: Refused,
}

impl Rejected {
    pub(super) fn answer(self) {
        self.job.refuse(self.why);
    }
}

/// A call that gives a `T`.
pub(super) struct Task<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<F, T> Task<F, T>
where
    F: FnOnce() -> Result<T, Error> + Send,
    T: Send,
{
    pub(super) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, Failure>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work: Some(work), outcome: None, reply }, answer)
    }
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce() -> Result<T, Error> + Send,
    T: Send,
{
    fn run(&mut self) {
        let Some(work) = self.work.take().filter(|_| !self.reply.is_closed()) else { return };
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Error::internal("the call panicked on its backend's thread: the host's log says where"))
        });
        self.outcome = Some(outcome.map_err(Failure::from));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // The caller may have left.
            let _ = self.reply.send(outcome);
        }
    }

    fn refuse(self: Box<Self>, why: Refused) {
        // The caller may have left.
        let _ = self.reply.send(Err(why.into()));
    }
}
