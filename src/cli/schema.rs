//! `dunnage schema`

use dunnage_driver_api::DriverEntry;

use super::{Output, Run, Status};

/// Print the JSON Schema of the configuration file, with the keys of every driver
#[derive(clap::Args)]
pub(super) struct Schema {}

impl Run for Schema {
    fn run(self, drivers: &[DriverEntry], output: &mut Output) -> anyhow::Result<Status> {
        output.json(&crate::config::schema(drivers))?;
        Ok(Status::Success)
    }
}
