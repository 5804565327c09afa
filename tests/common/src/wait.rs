//! Waiting for a condition.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Asks every few milliseconds until `condition` answers true.
///
/// # Errors
/// It has not become true within `limit`; `what` says what was waited for. An error of `condition` ends it at once.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
