//! A volume that a server on the network has, and that each node mounts for itself.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::error::{Error, Result};

/// A file system that is to be mounted: its type and source, and what it is told. Nothing secret may be in it: mounts can
/// be seen by everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountSource {
    /// The kernel's name of the file system.
    pub fs_type: &'static str,
    /// What is mounted, as the table of mounts shows it.
    pub source: String,
    /// What the file system is told, in this order: a word, or a word and its value.
    pub options: Vec<(String, Option<String>)>,
    /// The options that a request may add. Each must be one that two mounts of one server can have differently: what a file
    /// system keeps from the first mount would be dropped without a word.
    pub allowed: &'static [&'static str],
    /// The inode number at the top, where it is known: something else than that is not mounted.
    pub inode: Option<u64>,
}

impl MountSource {
    /// A file system that is told nothing more, and to whose options a request adds none.
    pub fn new(fs_type: &'static str, source: impl Into<String>) -> Self {
        Self { fs_type, source: source.into(), options: Vec::new(), allowed: &[], inode: None }
    }

    /// The same, told a word more.
    #[must_use]
    pub fn with_flag(mut self, word: impl Into<String>) -> Self {
        self.options.push((word.into(), None));
        self
    }

    /// The same, told a word and its value more.
    #[must_use]
    pub fn with_option(mut self, word: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((word.into(), Some(value.into())));
        self
    }

    /// The same, where a request may add these options.
    #[must_use]
    pub fn allowing(mut self, options: &'static [&'static str]) -> Self {
        self.allowed = options;
        self
    }

    /// The same, which has this inode number at its top.
    #[must_use]
    pub fn with_inode(mut self, inode: u64) -> Self {
        self.inode = Some(inode);
        self
    }
}

/// Mounts for a driver whose store is a file system on the network, so that it can look into it. The host's.
pub trait Mounts: Send + Sync {
    /// Mounts it, attached nowhere: it lasts as long as the descriptor, or what was opened beneath it.
    ///
    /// # Errors
    /// The kernel's, with its words; [`Internal`](crate::ErrorKind::Internal) where the server did not answer `within`
    /// this time.
    fn mount(&self, source: &MountSource, within: Duration) -> Result<OwnedFd>;
}

/// Where there is no host.
pub(crate) struct NoMounts;

impl Mounts for NoMounts {
    fn mount(&self, source: &MountSource, _: Duration) -> Result<OwnedFd> {
        Err(Error::internal(format!("nobody mounts {} here: give the opening something that does", source.source)))
    }
}
