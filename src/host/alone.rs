//! A host for a demo or a test: its stores are new, and nothing of the environment counts.

use std::error::Error;
use std::sync::Arc;

use dunnage_driver_api::{DriverEntry, System};

use super::Host;
use crate::config::{Config, Environment};
use crate::mount::{Audience, EngineOptions};
use crate::telemetry::Telemetry;

impl Host {
    /// Starts a host with this configuration (YAML), on stores that it marks as its own. For a runtime with several
    /// threads.
    ///
    /// # Errors
    /// Where the configuration is wrong, a store cannot be marked, or the host not be started.
    pub async fn start_alone(config: &str, drivers: &[DriverEntry]) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let config = Config::parse(config, drivers, &Environment::default())?;
        for backend in &config.backends {
            let opening = backend.opening(&config.node, config.mode, Arc::new(System));
            let marked = tokio::task::block_in_place(|| backend.configured.init(&opening));
            marked.map_err(|error| format!("cannot mark the root of {}: {}", backend.name, error.report()))?;
        }
        Ok(Self::start(config, Telemetry::new(), EngineOptions { audience: Audience::Process }).await?)
    }
}
