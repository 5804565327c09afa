//! Whether this process is in the namespaces of the host.

use std::fs;

/// The kernel's fixed number of the first mount namespace (since Linux 6.17).
const FIRST_OF_MOUNTS: u64 = 0xEFFF_FFF8;
/// The kernel's fixed number of the first process namespace.
const FIRST_OF_PROCESSES: u64 = 0xEFFF_FFFC;
/// The kernel's fixed number of the first user namespace.
const FIRST_OF_USERS: u64 = 0xEFFF_FFFD;

/// Whether root in here is root of the host.
pub(super) fn is_first_of_users() -> bool {
    number("self", "user") == Some(FIRST_OF_USERS)
}

/// Whether what is mounted here is mounted for the host: not so in a container. Where that cannot be told it is taken
/// for one.
pub(super) fn shares_mounts_with_host() -> bool {
    let own = number("self", "mnt");
    own == Some(FIRST_OF_MOUNTS)
        || own.is_some() && number("self", "pid") == Some(FIRST_OF_PROCESSES) && own == number("1", "mnt")
}

fn number(process: &str, kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}
