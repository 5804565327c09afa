//! A folder of subvolumes: `<root>/volumes` or `<root>/snapshots`.
//!
//! ```text
//! <key>        that of a volume or snapshot; without a record: somebody lost that, so it is never used or removed
//! .new.<key>   made, and perhaps not whole; with a record and without a <key> it is whole
//! .old.<key>   being removed, since it holds other subvolumes and takes more than one step
//! ```
//!
//! The kernel makes and removes a subvolume in one step, and makes it durable before it answers. The steps of a create
//! are: make `.new.<key>`, keep the record, rename; of a removal: destroy `<key>`, make that durable, remove the record. So
//! at a power cut after any step [`sweep`](Subvolumes::sweep) knows what is whole and what is nobody's.

use std::io;
use std::os::fd::OwnedFd;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Result};
use linux_raw_sys::btrfs::{BTRFS_FIRST_FREE_OBJECTID, BTRFS_ROOT_REF_KEY, BTRFS_ROOT_TREE_OBJECTID};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::sys;

const NEW: &str = ".new.";
const OLD: &str = ".old.";

/// The permissions of an empty volume: any user of a pod may write; the folder above is root's alone.
const MODE: Mode = Mode::from_raw_mode(0o777);

/// The subvolumes in a folder.
pub(crate) struct Subvolumes(Folder);

impl Subvolumes {
    pub(crate) fn new(folder: Folder) -> Self {
        Self(folder)
    }

    /// Makes a subvolume of what `source` has now, or an empty one, under a name of its own until it is
    /// [placed](Self::place). What an attempt left that was cut off goes first.
    ///
    /// # Errors
    /// FailedPrecondition where the key is taken by data without a record, or the source cannot be copied.
    pub(crate) fn make(&self, key: &str, source: Option<&Folder>, read_only: bool) -> Result<Folder> {
        let Self(folder) = self;
        self.undo(key)?;
        if folder.contains(key)? {
            return Err(Error::precondition(format!(
                "{} has data and no record, so it is nobody's: restore the record, or move it away",
                folder.path().join(key).display()
            )));
        }
        let name = format!("{NEW}{key}");
        let made = match source {
            Some(source) => sys::snapshot(folder, &name, source, read_only),
            None => sys::create_subvolume(folder, &name),
        };
        made.map_err(|error| match (error, source) {
            (Errno::TXTBSY, Some(source)) => Error::precondition(format!(
                "{} holds a swap file that is in use: `swapoff` it first",
                source.path().display()
            )),
            _ => folder.failed("make the subvolume", key)(error.into()),
        })?;
        let made = folder.folder(&name).map_err(folder.failed("open", &name))?;
        if source.is_none() {
            rustix::fs::fchmod(&made, MODE).map_err(|error| made.failed("set the mode of", "")(error.into()))?;
            made.sync().map_err(made.failed("sync", ""))?;
        }
        Ok(made)
    }

    /// Gives what was made its name, once its record is durable.
    ///
    /// # Errors
    /// As renameat(2): the next attempt removes it.
    pub(crate) fn place(&self, key: &str) -> Result<()> {
        self.0.rename(format!("{NEW}{key}"), &self.0, key).map_err(self.0.failed("place", key))
    }

    /// Removes what was made and not placed, and what is left of a removal.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub(crate) fn undo(&self, key: &str) -> Result<()> {
        self.destroy(key, &format!("{NEW}{key}"))?;
        self.destroy(key, &format!("{OLD}{key}"))
    }

    /// Removes the subvolume and all that lies in it, durably. Succeeds where there is none.
    ///
    /// # Errors
    /// FailedPrecondition where it is in use by the kernel.
    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        self.destroy(key, key)?;
        self.undo(key)?;
        self.0.sync().map_err(self.0.failed("sync", ""))
    }

    /// Whether there is a subvolume of this key in its place.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub(crate) fn contains(&self, key: &str) -> Result<bool> {
        self.0.contains(key)
    }

    /// Opens the subvolume of this key.
    ///
    /// # Errors
    /// FailedPrecondition where it is gone, or is something else.
    pub(crate) fn open(&self, key: &str) -> Result<Folder> {
        let path = self.0.path().join(key);
        let opened = self.0.folder(key).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::precondition(format!(
                "{} does not exist: its data is gone; if its deletion was cut off, delete it again",
                path.display()
            )),
            _ => self.0.failed("open", key)(error),
        })?;
        let stat = rustix::fs::fstat(&opened).map_err(|error| self.0.failed("look at", key)(error.into()))?;
        if stat.st_ino == u64::from(BTRFS_FIRST_FREE_OBJECTID) {
            return Ok(opened);
        }
        Err(Error::precondition(format!(
            "{} is a plain folder and no subvolume: move its files into a subvolume of that name",
            path.display()
        )))
    }

    /// Opens the subvolume of this key `O_PATH`, after [`open`](Self::open) has proven it.
    ///
    /// # Errors
    /// As openat2(2).
    pub(crate) fn open_path(&self, key: &str) -> Result<OwnedFd> {
        self.0.open_path(key).map_err(self.0.failed("open", key))
    }

    /// Finishes what a create or a removal left that was cut off. `is_kept` tells whether there is a record; it is asked
    /// for what was cut off alone, since a start must not wait for all there are.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub(crate) fn sweep(&self, is_kept: impl Fn(&str) -> Result<bool>) -> Result<()> {
        let Self(folder) = self;
        let failed = |error| folder.failed("list", "")(error);
        // Read to the end first: a folder that changes may show an entry twice.
        let entries: Vec<_> = folder.entries().map_err(failed)?.collect::<io::Result<_>>().map_err(failed)?;
        for name in entries.iter().filter_map(|(name, _)| name.to_str()) {
            let done = match (name.strip_prefix(NEW), name.strip_prefix(OLD)) {
                (Some(key), _) => self.finish(key, name, is_kept(key)),
                (_, Some(key)) => self.destroy(key, name),
                (None, None) => Ok(()),
            };
            if let Err(error) = done {
                let path = folder.path().join(name);
                tracing::warn!(path = %path.display(), error = error.report(), "left alone at start");
            }
        }
        Ok(())
    }

    /// Gives what was made its name where its record is durable, and removes it where there is none.
    fn finish(&self, key: &str, name: &str, is_kept: Result<bool>) -> Result<()> {
        if is_kept? && !self.contains(key)? { self.place(key) } else { self.destroy(key, name) }
    }

    /// Destroys the subvolume `name` of this key; not yet durable.
    fn destroy(&self, key: &str, name: &str) -> Result<()> {
        let Self(folder) = self;
        let destroyed = match sys::destroy(folder, name) {
            Err(Errno::NOTEMPTY) => self.destroy_whole(key, name),
            Err(Errno::NOENT) => Ok(()),
            done => done,
        };
        destroyed.map_err(|error| match error {
            Errno::PERM => Error::precondition(format!(
                "the kernel uses {}: wait for `btrfs send`, `swapoff` the swap file in it, or let root do this",
                folder.path().join(name).display()
            ))
            .caused_by(io::Error::from(error)),
            _ => folder.failed("destroy the subvolume", name)(error.into()),
        })
    }

    /// Destroys a subvolume with those that a workload made in it. It goes out of its place first, so that what is left
    /// when this is cut off is nobody's.
    fn destroy_whole(&self, key: &str, name: &str) -> rustix::io::Result<()> {
        let Self(folder) = self;
        let old = format!("{OLD}{key}");
        if name != old {
            rustix::fs::renameat(folder, name, folder, &old)?;
        }
        let top = rustix::fs::openat(
            folder,
            &old,
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (mut found, mut next) = (vec![sys::subvolume_id(&top)?], 0);
        while let Some(parent) = found.get(next).copied() {
            let children = sys::search(folder, BTRFS_ROOT_TREE_OBJECTID, parent, BTRFS_ROOT_REF_KEY)?;
            found.extend(children.iter().map(|child| child.offset));
            next += 1;
        }
        // The innermost first; the first of all is the subvolume itself.
        for id in found.iter().skip(1).rev() {
            sys::destroy_by_id(folder, *id)?;
        }
        sys::destroy(folder, &old)
    }
}
