//! The commands that a person runs by hand: the whole program, from its arguments to its exit status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod conformance;
mod demo;
mod serve;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dunnage_test_common::wait_until;
use rustix::process::{Pid, Signal, kill_process};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
/// Far above what any of them takes; only a hang comes near.
const LIMIT: Duration = Duration::from_secs(120);

/// A command that runs, with its standard output to be read. Killed where the test ends before it.
struct Running {
    child: Child,
    /// Until its end is waited for.
    lines: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
        let lines = child.stdout.take().map(BufReader::new);
        Ok(Self { child, lines })
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let lines = self.lines.as_mut().context("no output")?;
        Ok((lines.read_line(&mut line)? > 0).then_some(line))
    }

    /// What Ctrl-C does.
    fn interrupt(&self) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?).context("no process")?;
        kill_process(process, Signal::INT).context("cannot signal it")
    }

    /// Waits for its end, and reads what it wrote until then.
    fn end(mut self) -> Result<(ExitStatus, String)> {
        // Beside the waiting: it may fill the pipe before it ends, or never end.
        let mut lines = self.lines.take().context("no output")?;
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).map(|_| rest)
        });
        let mut status = None;
        wait_until("the command to end", LIMIT, || {
            status = self.child.try_wait()?;
            Ok(status.is_some() && reader.is_finished())
        })?;
        let rest = reader.join().map_err(|_| anyhow!("the reader of its output panicked"))??;
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
