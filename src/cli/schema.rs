//! `dunnage schema`

use super::{Output, Program, Run, Status};

/// Print the JSON Schema of the configuration file, with the keys of every driver
#[derive(clap::Args)]
pub(super) struct Schema {}

impl Run for Schema {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        output.json(&crate::config::schema(program.drivers()))?;
        Ok(Status::Success)
    }
}
