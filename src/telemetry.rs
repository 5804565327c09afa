//! Logs, metrics and the health endpoint: one layer around the way of a request.
//!
//! No handler logs a call, measures one or redacts anything: the layer does it once. It sees of a request only its
//! method and what [`record`] was told; it logs neither messages of the wire nor their fields, so no secret, context
//! or mount flag can get into a line.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

pub use self::call::{Field, record};
pub use self::commands::Measured;
pub use self::endpoint::{BackendHealth, Endpoint, Health};
pub use self::layer::{Observe, Observed};
pub use self::logs::{LogFormat, init};
pub use self::metrics::{Metrics, Sample, Waits};
use self::repeats::Repeats;

mod call;
mod code;
mod commands;
mod endpoint;
mod layer;
mod logs;
mod metrics;
mod process;
mod repeats;

/// How long the same error of the same object is only counted after it was logged.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The telemetry of the process: what all its sockets share. Clones are the same telemetry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: Metrics,
    repeats: Arc<Repeats>,
    /// The number of the last request, unique in the life of the process.
    requests: Arc<AtomicU64>,
}

impl Telemetry {
    /// Telemetry in which nothing has happened yet.
    pub fn new() -> Self {
        Self { metrics: Metrics::new(), repeats: Arc::new(Repeats::new(REPEAT_INTERVAL)), requests: Arc::default() }
    }

    /// The layer to put around everything that is served on the socket of `plugin`, a CSI name.
    pub fn layer(&self, plugin: &str) -> Observe {
        Observe::new(self.clone(), plugin)
    }

    /// The metrics, to measure or to register more.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Logs once per interval how often errors were repeated that nobody logged. Never ends: run it beside the
    /// servers and drop it with them.
    pub async fn log_repeats(&self) {
        let mut ticks = tokio::time::interval(REPEAT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.repeats.log_ended(Instant::now());
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
