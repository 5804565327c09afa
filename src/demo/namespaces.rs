//! Namespaces of the demo's own.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

mod unshare;

/// The inode of the first user namespace, the same since Linux 3.8 (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The switches that forbid a user namespace to an ordinary user: the file, the value that forbids, and the remedy.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// With what rights the demo runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Footing {
    /// As root of the machine: every driver can work.
    Root,
    /// As root of a user namespace alone: what needs the machine's devices cannot work.
    Namespace,
}

impl fmt::Display for Footing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root, in a mount namespace of its own",
            Self::Namespace => "not root: in a user namespace of its own",
        })
    }
}

/// Why the demo can have no namespaces.
#[derive(Debug, thiserror::Error)]
#[error("the demo needs {what}, and the kernel refuses ({source}): {remedy}")]
pub struct Cannot {
    what: &'static str,
    remedy: String,
    source: io::Error,
}

/// Leaves the mounts of the machine: mounts made from now on are seen by this process and its children alone. Without
/// root it makes a user namespace first; a process that is already root of one just uses it.
///
/// # Errors
/// Where the kernel or a sandbox forbids it; the message names the switch. To be called while the process has one
/// thread: the kernel refuses it to others.
pub fn enter_namespaces() -> Result<Footing, Cannot> {
    if rustix::process::geteuid().is_root() && unshare::unshare(UnshareFlags::NEWNS).is_ok() {
        leave_peers().map_err(|error| cannot("mounts of its own", error))?;
        return Ok(if is_first_user_namespace() { Footing::Root } else { Footing::Namespace });
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|error| cannot("a user namespace", error))?;
    map_ids(uid, gid).map_err(|error| cannot("to map its user", error))?;
    // Where a policy lets the namespace be made and takes its rights away, this is what fails.
    leave_peers().map_err(|error| cannot("to mount in its user namespace", error))?;
    Ok(Footing::Namespace)
}

fn leave_peers() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// The caller becomes root of the namespace. An ordinary user may map a group only once setgroups is denied.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn is_first_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == FIRST_USER_NAMESPACE)
}

fn cannot(what: &'static str, source: io::Error) -> Cannot {
    let forbids =
        |(file, value, _): &&(&str, &str, &str)| fs::read_to_string(file).is_ok_and(|now| now.trim() == *value);
    let remedy = match SWITCHES.iter().find(forbids) {
        Some((file, value, remedy)) => format!("{file} is {value}; allow it with `{remedy}`, or run the demo as root"),
        None => "run the demo as root, or outside the container or sandbox that forbids it".to_owned(),
    };
    Cannot { what, remedy, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_needed_and_what_to_do() {
        let refused = cannot("a user namespace", io::Error::from_raw_os_error(1)).to_string();
        assert!(refused.starts_with("the demo needs a user namespace"), "{refused}");
        assert!(refused.contains("run the demo"), "{refused}");
    }
}
