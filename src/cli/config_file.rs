//! The argument that names the configuration.

use std::path::{Path, PathBuf};

use dunnage_driver_api::DriverEntry;

use crate::config::{Config, ConfigError};

/// Which configuration a command reads.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration file (YAML; see `dunnage schema`)
    #[arg(long, value_name = "FILE", env = "DUNNAGE_CONFIG")]
    config: PathBuf,
}

impl ConfigFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.config
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self, drivers: &[DriverEntry]) -> Result<Config, ConfigError> {
        Config::load(&self.config, drivers)
    }
}
