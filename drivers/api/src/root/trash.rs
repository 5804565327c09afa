//! Where removed things wait for their end: `<root>/.dunnage/trash`.
//!
//! A rename puts a file or a tree of any size out of reach at once; a thread of this backend takes it apart later. What
//! is left when the process ends is taken up at the next start.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::folder::Folder;
use super::reaper::Reaper;
use super::{Lock, nonce};
use crate::error::{Error, Result};

/// What could not be removed (an immutable file, an I/O error) is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the end of the backend waits for the thread: more than one system call on a file system that lives.
const FAREWELL: Duration = Duration::from_secs(2);

/// The trash of a root. When it is dropped its thread stops.
pub struct Trash {
    shared: Arc<Shared>,
    ended: Mutex<Receiver<Infallible>>,
}

struct Shared {
    folder: Folder,
    names: Names,
    work: Mutex<bool>,
    bell: Condvar,
    stop: AtomicBool,
    _lock: Lock,
}

/// Names that nothing in the trash has.
pub(super) struct Names {
    nonce: String,
    next: AtomicU64,
}

impl Names {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { nonce: nonce()?, next: AtomicU64::new(0) })
    }

    pub(super) fn next(&self) -> String {
        format!("{}.{}", self.nonce, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Trash {
    pub(super) fn new(folder: Folder, lock: Lock) -> Result<Self> {
        let shared = Arc::new(Shared {
            folder,
            names: Names::new()?,
            work: Mutex::new(true),
            bell: Condvar::new(),
            stop: AtomicBool::new(false),
            _lock: lock,
        });
        let (end, ended) = channel();
        let reaped = shared.clone();
        std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || run(end, reaped))
            .map_err(|error| Error::io("cannot start the thread that empties the trash", error))?;
        Ok(Self { shared, ended: Mutex::new(ended) })
    }

    /// Puts an entry of `from`, a file or a tree, into the trash; it is gone from `from` durably when this returns.
    /// Succeeds where there is none.
    ///
    /// # Errors
    /// As renameat(2) and fsync(2).
    pub fn discard(&self, from: &Folder, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        let failed = |error| from.failed("discard", name)(error);
        match from.rename(name, &self.shared.folder, self.shared.names.next()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => from.sync().map_err(failed)?,
        }
        *self.shared.work.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Whether nothing waits there.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        self.shared.folder.is_empty().map_err(self.shared.folder.failed("list", ""))
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Taken, so that the thread cannot be between its look at `stop` and its wait.
        drop(self.shared.work.lock());
        self.shared.bell.notify_one();
        // On a file system that hangs the thread cannot end, and nobody may wait for it.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(FAREWELL);
    }
}

/// Empties the trash whenever there is work, until the backend ends. Dropping `_end`, after the lock in `shared`, tells
/// that it did.
fn run(_end: Sender<Infallible>, shared: Arc<Shared>) {
    let reaper = Reaper::new(&shared.folder, &shared.names, &shared.stop);
    while !shared.stop.load(Ordering::Relaxed) {
        *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = false;
        let clean = reaper.empty().unwrap_or_else(|error| {
            let trash = shared.folder.path().display();
            tracing::warn!(%trash, %error, "cannot empty the trash, will try again");
            false
        });
        let again = if clean { Duration::MAX } else { AGAIN };
        let work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |work: &mut bool| !*work && !shared.stop.load(Ordering::Relaxed);
        drop(shared.bell.wait_timeout_while(work, again, idle));
    }
}

#[cfg(test)]
mod tests;
