//! `guard-frozen`: the child of a host that holds file systems still. Nobody else runs it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Output, Program, Run, Status};
use crate::mount;

/// Thaws the file systems of a host that does not.
#[derive(Args)]
pub(super) struct GuardFrozen {
    /// For how many milliseconds they may be frozen.
    within: u64,
    /// The file that says what is frozen.
    intent: PathBuf,
    /// The tops of the file systems.
    tops: Vec<PathBuf>,
}

impl Run for GuardFrozen {
    fn run(self, _: &Program, _: &mut Output) -> anyhow::Result<Status> {
        let within = Duration::from_millis(self.within);
        match mount::watch_frozen(within, &self.intent, &self.tops)? {
            0 => Ok(Status::Success),
            // The parent reads this status; it is none of the program's own.
            thawed => std::process::exit(thawed.into()),
        }
    }
}
