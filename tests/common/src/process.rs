//! Running a program to its end, but not for ever.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait_until;

/// Runs `command` with its output in the file `log`, and without a standard input. Past `limit` it is killed.
///
/// # Errors
/// It cannot be started, or has not ended within `limit`.
pub fn run_within(command: &mut Command, log: &Path, limit: Duration) -> Result<ExitStatus> {
    let program = command.get_program().to_owned();
    let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut ended = None;
    let waited = wait_until(&format!("{} to end", program.display()), limit, || {
        ended = child.try_wait()?;
        Ok(ended.is_some())
    });
    if let Err(error) = waited {
        child.kill()?;
        child.wait()?;
        return Err(error.context(std::fs::read_to_string(log).unwrap_or_default()));
    }
    ended.context("it has not ended")
}
