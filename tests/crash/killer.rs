//! Kills a process at the N-th system call of a kind, from outside.

use anyhow::Result;
use dunnage_test_common::Strace;
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

/// The N-th system call of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nth(pub(crate) &'static str, pub(crate) usize);

/// Traces every thread of a process: each thread, and each program that is started, is killed as it begins the N-th of
/// its system calls of one name, and with it all threads of its process.
pub(crate) fn kill_at(process: Pid, Nth(call, nth): Nth) -> Result<Strace> {
    let arguments = ["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=SIGKILL:when={nth}")];
    Strace::attach(process, &arguments.map(str::to_owned))
}
