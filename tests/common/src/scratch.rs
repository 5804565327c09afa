//! A folder for one test, and the end of all that is in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::mounts;

/// A temporary folder. When it is dropped, what is mounted beneath it is unmounted, loop devices on its files are
/// detached, and it is removed.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Makes it, with a short path, since the path of a socket has 107 bytes at most.
    ///
    /// # Errors
    /// The system's temporary folder is missing, full or not ours to write.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunnage-").tempdir().context("cannot make a temporary folder")?;
        Ok(Self { folder })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a folder in it, with parents; what is there already stays.
    ///
    /// # Errors
    /// The file system's.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A device on a file of a disk that is mounted beneath has lost its path once that is unmounted.
        let devices = mounts::loop_devices_beneath(self.path());
        mounts::unmount_beneath(self.path());
        mounts::detach(devices);
        mounts::detach(mounts::loop_devices_beneath(self.path()));
    }
}
