//! `dunnage serve`

use super::ConfigFile;

/// Serve the configured backends until told to stop (SIGTERM, SIGINT)
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}
