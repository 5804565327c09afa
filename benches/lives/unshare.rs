//! The one call that the type system cannot vouch for.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A mount namespace of this process's own.
pub(crate) fn mounts() -> rustix::io::Result<()> {
    // SAFETY: the table of descriptors is not unshared, which is all that could break the ownership of one.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}
