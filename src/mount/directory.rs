//! A second mount of a directory that a driver brought.
//!
//! To copy a mount the kernel goes through all mounts that lie on it, also where it copies none of them: with ten
//! thousand targets on the mount of a backend's root that takes longer than all the rest of a publish. So the directory
//! is opened through a mount on which nothing lies: a copy of the one that its parent is on, attached nowhere, which is
//! kept with the parent. Kernels before Linux 6.15 copy no mount that is attached nowhere; there, and wherever anything
//! is not as it should be, the directory is copied as the driver opened it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{DirectoryParent, DirectorySource, OwnMount, Result};
use rustix::io::Errno;

use super::bind;
use super::options::Attributes;
use super::root::Root;

/// A second mount of the directory, attached nowhere yet: see [`bind::copy_of`].
pub(super) fn copy_of(source: &DirectorySource, attributes: Attributes) -> Result<OwnedFd> {
    let copy = source.place.as_ref().and_then(|(parent, name)| through_own_mount(parent, name, &source.directory));
    match copy {
        Some(copy) => bind::finish(Ok(copy), attributes),
        None => bind::copy_of(&source.directory, attributes),
    }
}

fn through_own_mount(parent: &DirectoryParent, name: &OsStr, directory: &OwnedFd) -> Option<OwnedFd> {
    let folder = match parent.own_mount() {
        OwnMount::Refused => return None,
        // An admin may have mounted the root anew in its place, as read-only.
        OwnMount::Made(folder) if have_same_attributes(parent.folder(), &folder) => folder,
        OwnMount::Made(_) | OwnMount::Unmade => make(parent)?,
    };
    let opened = folder.open_path(name).ok()?;
    // What the driver opened is the volume, whatever has its name by now.
    if Root::of(&opened).ok()? != Root::of(directory).ok()? {
        return None;
    }
    unless_refused(parent, bind::clone_of(opened))
}

/// Makes the mount, and keeps it.
fn make(parent: &DirectoryParent) -> Option<Arc<Folder>> {
    let copy = unless_refused(parent, bind::clone_of(parent.folder()))?;
    // Out of the peer group of its source, or every mount and unmount there would visit it.
    let copy = bind::finish(Ok(copy), Attributes::default()).ok()?;
    let folder = Arc::new(parent.folder().seen_through(copy));
    parent.keep(OwnMount::Made(folder.clone()));
    Some(folder)
}

fn have_same_attributes(one: &Folder, other: &Folder) -> bool {
    let attributes = |folder: &Folder| rustix::fs::fstatvfs(folder.as_fd()).map(|seen| seen.f_flag);
    matches!((attributes(one), attributes(other)), (Ok(one), Ok(other)) if one == other)
}

/// Remembers where the kernel will never do it; other errors may be of the moment.
fn unless_refused(parent: &DirectoryParent, copy: rustix::io::Result<OwnedFd>) -> Option<OwnedFd> {
    if copy.as_ref().is_err_and(|error| *error == Errno::INVAL) {
        parent.keep(OwnMount::Refused);
    }
    copy.ok()
}
