//! `create-mounted`: the child of a host that mounts a file system on the network. Nobody else runs it.

use clap::Args;

use super::{Output, Program, Run, Status};
use crate::mount;

/// Makes the file system that its standard input describes.
#[derive(Args)]
pub(super) struct CreateMounted {}

impl Run for CreateMounted {
    fn run(self, _: &Program, _: &mut Output) -> anyhow::Result<Status> {
        mount::create_mounted()?;
        Ok(Status::Success)
    }
}
