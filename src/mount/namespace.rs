//! Whose mount namespace this is, and which of its folders the host sees.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dunnage_driver_api::{Error, Result};

/// The kernel's fixed number of the first mount namespace (since Linux 6.17).
const FIRST_MOUNT_NAMESPACE: u64 = 0xEFFF_FFF8;
/// The kernel's fixed number of the first process namespace.
const FIRST_PROCESS_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Who must see what is mounted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The host, whose mount namespace this is.
    Host,
    /// The host, from a mount namespace of our own (a container's): every mount lies below one that is shared with it.
    HostOfContainer,
    /// This process and its children alone, as in the demo without root.
    Process,
}

impl Audience {
    /// The host, in whichever of the two namespaces this process is. To be asked before a process gives up its rights:
    /// afterwards the kernel does not tell every one of them.
    pub fn host() -> Self {
        if is_of_host() { Self::Host } else { Self::HostOfContainer }
    }
}

/// What mounts must lie below.
#[derive(Debug)]
pub(super) struct Namespace {
    must_share: bool,
    /// Mounts found to be shared. Their propagation is the pod's or the unit's, fixed while it runs; without this a
    /// publish would cost a reading of the whole table of mounts.
    shared: Mutex<HashSet<u64>>,
}

impl Namespace {
    pub(super) fn new(audience: Audience) -> Self {
        Self { must_share: audience == Audience::HostOfContainer, shared: Mutex::default() }
    }

    /// Checks that what is mounted on `mount`, of which `folder` is a part, outlives the container.
    ///
    /// # Errors
    /// FailedPrecondition that names the folder and its propagation.
    pub(super) fn check(&self, mount: u64, folder: &Path) -> Result<()> {
        if !self.must_share || self.shared().contains(&mount) {
            return Ok(());
        }
        let table = mounts()?;
        let propagation = propagation(&table, mount).unwrap_or_default();
        if propagation.starts_with("shared:") {
            self.shared().insert(mount);
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the folder {} is not shared with the host (its propagation is {}), so that a mount in it would be seen by \
             nobody else and end with this container: mount that folder, or one above it, with Bidirectional \
             propagation",
            folder.display(),
            if propagation.is_empty() { "private" } else { &propagation },
        )))
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table of mounts. It is read where nothing else tells, never once a call.
pub(super) fn mounts() -> Result<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Error::io("cannot read the mounts of this process", error))
}

/// The line of a mount in the table of mounts.
pub(super) fn line_of(table: &str, mount: u64) -> Option<&str> {
    let number = mount.to_string();
    table.lines().find(|line| line.split(' ').next() == Some(&number))
}

/// The optional fields of a mount: `shared:N`, `master:N`, both, or nothing.
fn propagation(table: &str, mount: u64) -> Option<String> {
    let optional = line_of(table, mount)?.split(' ').skip(6).take_while(|field| *field != "-");
    Some(optional.collect::<Vec<_>>().join(" "))
}

/// Whether this is the namespace of the host's first process. Where that cannot be told it is taken for a container.
pub(crate) fn is_of_host() -> bool {
    let number = |process: &str, kind: &str| {
        let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).ok()?;
        link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse::<u64>().ok()
    };
    let own = number("self", "mnt");
    own == Some(FIRST_MOUNT_NAMESPACE)
        || own.is_some() && number("self", "pid") == Some(FIRST_PROCESS_NAMESPACE) && own == number("1", "mnt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_propagation_of_a_mount_is_read_from_its_line() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     33 27 0:22 / /a rw,relatime shared:5 master:1 - tmpfs a rw\n";
        assert_eq!(propagation(table, 33).as_deref(), Some("shared:5 master:1"));
        assert_eq!(propagation(table, 22).as_deref(), Some(""));
        assert_eq!(propagation(table, 2), None);
    }
}
