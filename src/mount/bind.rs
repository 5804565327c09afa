//! Showing a directory, a mount or a device at a second place.

use std::os::fd::{AsFd, OwnedFd};

use dunnage_driver_api::{Error, Result};
use linux_raw_sys::general::MS_PRIVATE;
use rustix::mount::OpenTreeFlags;

use super::options::Attributes;
use super::sys;

/// A second mount of what `source` shows, attached nowhere yet.
///
/// It has its attributes before anybody can see it, so that a read-only one was never writable; and it has left the
/// peer group of its source, so that later mounts and unmounts at the source do not visit it.
pub(super) fn copy_of(source: impl AsFd, attributes: Attributes) -> Result<OwnedFd> {
    finish(clone_of(source), attributes)
}

/// The same, of a copy that was just made.
pub(super) fn finish(copy: rustix::io::Result<OwnedFd>, attributes: Attributes) -> Result<OwnedFd> {
    let copy = copy.map_err(|error| Error::io("cannot make a second mount of the volume", error))?;
    sys::mount_setattr(copy.as_fd(), attributes.set, attributes.clear, MS_PRIVATE.into())
        .map_err(|error| Error::io("cannot set the attributes of a mount", error))?;
    Ok(copy)
}

/// A second mount as the kernel makes it: with the attributes of its source, and in the peer group of that.
pub(super) fn clone_of(source: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(source, "", flags)
}
