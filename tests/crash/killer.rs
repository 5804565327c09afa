//! Kills a process at the N-th system call of a kind, from outside.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::wait_until;
use rustix::process::Pid;

/// Everything that changes a file system, a mount or a device, but for plain writes: what is written counts only once
/// one of these comes after it.
pub(crate) const CALLS: [&str; 22] = [
    "mkdir",
    "mkdirat",
    "openat2",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "ioctl",
    "fsopen",
    "fsconfig",
    "fsmount",
    "open_tree",
    "mount_setattr",
    "move_mount",
    "umount2",
    "execve",
];
const LIMIT: Duration = Duration::from_secs(60);

/// The N-th system call of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nth(pub(crate) &'static str, pub(crate) usize);

/// strace(1), attached to every thread of a process: each thread, and each program that is started, is killed as it
/// begins the N-th of its system calls of one name, and with it all threads of its process.
pub(crate) struct Killer(Child);

impl Killer {
    pub(crate) fn attach(process: Pid, Nth(call, nth): Nth) -> Result<Self> {
        let process = process.as_raw_nonzero().get();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()])
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=SIGKILL:when={nth}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace")?;
        let mut killer = Self(strace);
        wait_until("strace to trace every thread", LIMIT, || {
            ensure!(killer.0.try_wait()?.is_none(), "strace ended: it may not trace process {process}");
            is_traced(Path::new(&format!("/proc/{process}/task")))
        })?;
        Ok(killer)
    }

    /// Lets go of what still runs.
    pub(crate) fn detach(mut self) -> Result<()> {
        self.end()
    }

    /// The kernel lets go of what a dead tracer traced. Asked to end, strace would wait for threads that are dying.
    fn end(&mut self) -> Result<()> {
        self.0.kill().context("cannot kill strace")?;
        self.0.wait().context("cannot wait for strace")?;
        Ok(())
    }
}

impl Drop for Killer {
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
