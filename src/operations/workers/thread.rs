//! What a thread does, and what watches over it.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Shared;
use super::pool::Next;

/// Starts a thread, whose place is taken.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let name = shared.backend.as_str().chars().take(15).collect();
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(name).spawn(move || work(&shared)).map(drop)
}

fn work(shared: &Shared) {
    let mut pool = shared.lock();
    loop {
        match pool.next(Instant::now()) {
            Next::Job { place, mut job } => {
                drop(pool);
                job.run();
                pool = shared.lock();
                let left = pool.finish(place);
                drop(pool);
                job.answer();
                if let Some(seconds) = left.was_stuck {
                    tracing::info!(backend = shared.backend.as_str(), seconds, "a call that hung has ended");
                }
                if !left.stays {
                    return;
                }
                pool = shared.lock();
            }
            Next::Wait(idle) => {
                pool.rest();
                let (woken, waited) = shared.work.wait_timeout(pool, idle).unwrap_or_else(PoisonError::into_inner);
                pool = woken;
                if !pool.rise(waited.timed_out()) {
                    return;
                }
            }
            Next::End => return,
        }
    }
}

/// Looks after the threads while there is work: one timer for them all, and none for an idle backend.
pub(super) async fn watch(shared: Arc<Shared>) {
    while let Some(next) = shared.sweep() {
        tokio::time::sleep_until(next.into()).await;
    }
}
