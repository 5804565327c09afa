//! strace(1), which changes what system calls of another process do.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;

use crate::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// strace(1), attached to every thread of a process, until it is detached or dropped.
#[derive(Debug)]
pub struct Strace(Child);

impl Strace {
    /// Attaches it to every thread of `process`, and to each program that is started, with these arguments more.
    ///
    /// # Errors
    /// It is not installed, or may not trace the process.
    pub fn attach(process: Pid, arguments: &[String]) -> Result<Self> {
        let process = process.as_raw_nonzero().get();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace")?;
        let mut attached = Self(strace);
        wait_until("strace to trace every thread", LIMIT, || {
            ensure!(attached.0.try_wait()?.is_none(), "strace ended: it may not trace process {process}");
            is_traced(Path::new(&format!("/proc/{process}/task")))
        })?;
        Ok(attached)
    }

    /// Lets go of what still runs.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn detach(mut self) -> Result<()> {
        self.end()
    }

    /// The kernel lets go of what a dead tracer traced. Asked to end, strace would wait for threads that are dying.
    fn end(&mut self) -> Result<()> {
        self.0.kill().context("cannot kill strace")?;
        self.0.wait().context("cannot wait for strace")?;
        Ok(())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Only after a failure it is still there.
        let _ = self.end();
    }
}

/// Whether each thread has a tracer. One that ends meanwhile counts as traced.
fn is_traced(threads: &Path) -> Result<bool> {
    for thread in fs::read_dir(threads)? {
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}
