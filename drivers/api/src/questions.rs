//! Questions to servers that may never answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Asks servers, each question on a thread of its own, which ends when the server answers or goes, however late. A server
/// that owes an answer is asked nothing more: so a dead one that has a thousand volumes does not hold a thousand threads.
/// For what only looks: work that changes something is not to be left to itself.
#[derive(Debug)]
pub struct Questions<K> {
    /// How many answers each server owes.
    owed: Mutex<BTreeMap<K, usize>>,
}

/// How a question stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Answered,
    GivenUp,
}

impl<K> Default for Questions<K> {
    fn default() -> Self {
        Self { owed: Mutex::default() }
    }
}

impl<K: Ord + Clone + Send + 'static> Questions<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `question` answers about `server`; `None` where there is no answer within this time, or one is still owed.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        server: &K,
        within: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>> {
        if self.lock().contains_key(server) {
            return Ok(None);
        }
        let standing = Arc::new(Mutex::new(Standing::Open));
        let (answered, answer) = mpsc::channel();
        let (questions, seen, asked) = (self.clone(), standing.clone(), server.clone());
        let ask = move || {
            let said = question();
            let mut standing = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *standing == Standing::GivenUp {
                questions.settle(&asked);
            }
            *standing = Standing::Answered;
            // Who asked may have given up.
            let _ = answered.send(said);
        };
        let thread = thread::Builder::new().name("question".into()).spawn(ask);
        thread.map_err(|error| Error::io("cannot start the thread that asks a server", error))?;
        match answer.recv_timeout(within) {
            Ok(answer) => return Ok(Some(answer)),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::internal("a question to a server failed")),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Open {
            *standing = Standing::GivenUp;
            *self.lock().entry(server.clone()).or_default() += 1;
        }
        drop(standing);
        Ok(answer.try_recv().ok())
    }

    fn settle(&self, server: &K) {
        let mut owed = self.lock();
        if let Some(count) = owed.get_mut(server) {
            *count -= 1;
            if *count == 0 {
                owed.remove(server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_server_that_owes_an_answer_is_asked_nothing_more_until_it_has_given_it() {
        let questions = Arc::new(Questions::default());
        let (silent, other) = ("silent", "other");
        let (end, wait) = channel::<()>();
        let asked = questions.ask(&silent, Duration::from_millis(20), move || wait.recv()).unwrap();
        assert!(asked.is_none());
        assert_eq!(questions.ask(&silent, LONG, || -> u8 { panic!("it is asked") }).unwrap(), None);
        assert_eq!(questions.ask(&other, LONG, || 7).unwrap(), Some(7), "another server is nothing to it");
        drop(end);
        let until = Instant::now() + LONG;
        while questions.ask(&silent, LONG, || 8).unwrap().is_none() {
            assert!(Instant::now() < until, "it is never asked again");
            thread::yield_now();
        }
    }
}
