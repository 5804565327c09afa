//! One at a time connects to a subsystem, or looks whether its connection may go: volumes of one subsystem share it.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use dunnage_driver_api::{Error, Result};

/// The subsystems that somebody has now, of all backends, each with the sysfs of its kernel.
static TAKEN: Mutex<Vec<(PathBuf, String)>> = Mutex::new(Vec::new());
static FREED: Condvar = Condvar::new();

/// A subsystem that one thread has alone.
#[derive(Debug)]
pub(crate) struct Turn((PathBuf, String));

impl Turn {
    /// Waits until nobody else has the subsystem.
    ///
    /// # Errors
    /// FailedPrecondition where somebody still has it at `until`.
    pub(crate) fn take(sys: &Path, nqn: &str, until: Instant) -> Result<Self> {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let within = until.saturating_duration_since(Instant::now());
        let wanted = (sys.to_owned(), nqn.to_owned());
        let is_taken = |taken: &mut Vec<_>| taken.contains(&wanted);
        let (mut taken, waited) =
            FREED.wait_timeout_while(taken, within, is_taken).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Error::precondition(
                "another volume of the subsystem is still being connected or disconnected",
            )
            .with("nqn", nqn)
            .retry(true));
        }
        taken.push(wanted.clone());
        Ok(Self(wanted))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| *one != self.0);
        FREED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_subsystem_is_one_threads_and_others_wait_until_then() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let turn = Turn::take("/sys".as_ref(), "nqn.turn:a", soon()).unwrap();
        assert!(Turn::take("/sys".as_ref(), "nqn.turn:a", soon()).unwrap_err().retry_can_help());
        Turn::take("/sys".as_ref(), "nqn.turn:b", soon()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                Turn::take("/sys".as_ref(), "nqn.turn:a", Instant::now() + Duration::from_secs(600)).map(drop)
            });
            drop(turn);
            waiting.join().unwrap().unwrap();
        });
    }
}
