//! The commands that a person runs by hand: the whole program, from its arguments to its exit status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod demo;
mod serve;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use dunnage_test_common::wait_until;
use rustix::process::{Pid, Signal, kill_process};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
/// Far above what any of them takes; only a hang comes near.
const LIMIT: Duration = Duration::from_secs(120);

/// A command that runs, with its standard output to be read. Killed where the test ends before it.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, lines })
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok((self.lines.read_line(&mut line)? > 0).then_some(line))
    }

    /// What Ctrl-C does.
    fn interrupt(&self) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?).context("no process")?;
        kill_process(process, Signal::INT).context("cannot signal it")
    }

    /// Reads to the end, and waits for it.
    fn end(&mut self) -> Result<(ExitStatus, String)> {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        let mut status = None;
        wait_until("the command to end", LIMIT, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        Ok((status.context("it has not ended")?, rest))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failure it still runs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
