//! Programs that are run, measured.

use std::time::Instant;

use dunnage_driver_api::{Command, Commands, Output, Result};

use super::Metrics;

/// Runs programs by way of `C` and measures how long each took and how it ended.
#[derive(Debug, Clone)]
pub struct Measured<C> {
    inner: C,
    metrics: Metrics,
    backend: String,
}

impl<C: Commands> Measured<C> {
    /// Measures what `inner` runs for `backend`.
    pub fn new(inner: C, metrics: Metrics, backend: impl Into<String>) -> Self {
        Self { inner, metrics, backend: backend.into() }
    }
}

impl<C: Commands> Commands for Measured<C> {
    fn run(&self, command: &Command) -> Result<Output> {
        let started = Instant::now();
        let result = self.inner.run(command);
        let outcome = match &result {
            Ok(output) if output.status.success() => "success",
            Ok(_) => "failure",
            Err(_) => "error",
        };
        self.metrics.command_ended(&self.backend, command.tool().program, outcome, started.elapsed());
        result
    }
}
