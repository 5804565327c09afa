//! A volume that is a directory, and the folder that it lies in.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::root::Folder;

/// A directory that is one volume.
#[derive(Debug)]
#[non_exhaustive]
pub struct DirectorySource {
    /// The directory, opened `O_PATH` beneath the backend's root.
    pub directory: OwnedFd,
    /// The folder it lies in and its name there, where the driver told them.
    pub place: Option<(Arc<DirectoryParent>, OsString)>,
}

impl DirectorySource {
    /// An open directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self { directory, place: None }
    }

    /// The same directory, which is the entry `name` of `parent`. With this the host mounts it in a time that does not
    /// grow with the number of mounts on the file system that it lies on.
    #[must_use]
    pub fn beneath(mut self, parent: Arc<DirectoryParent>, name: impl AsRef<OsStr>) -> Self {
        self.place = Some((parent, name.as_ref().to_owned()));
        self
    }
}

/// The folder that the directories of a backend lie in: one for each opened backend, which goes with it.
#[derive(Debug)]
pub struct DirectoryParent {
    folder: Folder,
    own_mount: Mutex<OwnMount>,
}

/// The same folder in a mount of its own, which the host makes and which is seen nowhere.
#[derive(Debug, Clone, Default)]
pub enum OwnMount {
    /// It was not made yet.
    #[default]
    Unmade,
    /// The folder in it.
    Made(Arc<Folder>),
    /// The kernel makes none, or copies none.
    Refused,
}

impl DirectoryParent {
    /// An open folder.
    pub fn new(folder: Folder) -> Self {
        Self { folder, own_mount: Mutex::default() }
    }

    /// The folder as the driver opened it.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What the host kept of it last.
    pub fn own_mount(&self) -> OwnMount {
        self.lock().clone()
    }

    /// Keeps this for as long as the backend is open, in place of what was kept before.
    pub fn keep(&self, own_mount: OwnMount) {
        *self.lock() = own_mount;
    }

    fn lock(&self) -> MutexGuard<'_, OwnMount> {
        self.own_mount.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
