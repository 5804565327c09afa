//! Takes trees apart.
//!
//! A folder that is not empty is lifted out of its parent to the top of the trash, where its turn comes. So there is no
//! recursion, no path that grows with the depth, and never more than a few descriptors; and whenever the work is cut
//! off, what is left is trash as before. Everything is relative to descriptors beneath the trash: a symlink is removed
//! as what it is, and a mount in the way is an error (EBUSY).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode};

use super::folder::Folder;
use super::trash::Names;

pub(super) struct Reaper<'a> {
    trash: &'a Folder,
    names: &'a Names,
    stop: &'a AtomicBool,
}

impl<'a> Reaper<'a> {
    pub(super) fn new(trash: &'a Folder, names: &'a Names, stop: &'a AtomicBool) -> Self {
        Self { trash, names, stop }
    }

    /// Removes all there is; `false` where something could not be removed or it was told to stop.
    pub(super) fn empty(&self) -> io::Result<bool> {
        let mut stuck: BTreeSet<OsString> = BTreeSet::new();
        loop {
            let mut removed = false;
            for entry in self.trash.entries()? {
                let (name, _) = entry?;
                if stuck.contains(&name) {
                    continue;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                match self.remove(&name) {
                    Ok(()) => removed = true,
                    Err(_) if self.stop.load(Ordering::Relaxed) => return Ok(false),
                    Err(error) => {
                        let path = self.trash.path().join(&name);
                        tracing::warn!(path = %path.display(), %error, "cannot remove from the trash, will try again");
                        stuck.insert(name);
                    }
                }
            }
            if !removed {
                return Ok(stuck.is_empty());
            }
        }
    }

    /// Removes one file, or a folder whose folders it lifts to the top.
    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match self.trash.unlink(name) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
        loop {
            match self.trash.remove_folder(name) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => return done,
            }
            // A file system may skip entries of a folder that shrinks while it is read: hence the loop.
            self.strip(&open_up(self.trash, name)?)?;
        }
    }

    /// Takes every entry out of `folder`; the first error after everything else was tried.
    fn strip(&self, folder: &Folder) -> io::Result<()> {
        let (mut failure, mut removed) = (None, false);
        for entry in folder.entries()? {
            let (name, kind) = entry?;
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.take(folder, &name, kind) {
                Ok(()) => removed = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None if removed => Ok(()),
            None => Err(io::Error::other("the folder reads as empty and is not")),
        }
    }

    fn take(&self, folder: &Folder, name: &OsStr, kind: FileType) -> io::Result<()> {
        if kind != FileType::Directory {
            match folder.unlink(name) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
                done => return done,
            }
        }
        match folder.remove_folder(name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
        match folder.rename(name, self.trash, self.names.next()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // Its `..` changes, so its owner needs the right to write into it.
                open_up(folder, name)?;
                folder.rename(name, self.trash, self.names.next())
            }
            done => done,
        }
    }
}

/// Opens a folder, and gives its owner every right to it where that is not so: what was a pod's may have any mode.
fn open_up(parent: &Folder, name: &OsStr) -> io::Result<Folder> {
    let path = parent.open_path(name)?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&path)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // By its descriptor's own link: by its name the mode of what a symlink points to could be changed.
        rustix::fs::chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), Mode::RWXU)?;
    }
    parent.folder(name)
}
