//! The one call that the type system cannot vouch for.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// unshare(2), for namespaces only.
pub(super) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    debug_assert!(!namespaces.contains(UnshareFlags::FILES));
    // SAFETY: the table of descriptors is not unshared, which is all that could break the ownership of one.
    Ok(unsafe { unshare_unsafe(namespaces) }?)
}
