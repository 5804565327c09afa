//! Sizes by project quotas.
//!
//! Each volume is a project of its own: its folder bears a project id that all that is made below inherits, and the
//! quota of that project is the volume's size. ext4 and xfs have them; `statfs` in the folder then shows the quota.
//! A tree in the trash still counts for its project, so an id is free only when the kernel counts nothing for it.

mod sys;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Bytes, Error, ErrorKind, Finding, Result};

use crate::config::ProjectIds;

pub(crate) const HOW_TO_ENABLE: &str = "ext4: `tune2fs -O project,quota DEVICE` while it is not mounted, and the mount \
                                        option `prjquota`; xfs: the mount option `pquota`";

/// How many ids are tried before the range is called full.
const ATTEMPTS: u32 = 4096;

/// The project quotas of a file system.
pub(crate) struct ProjectQuota {
    ids: ProjectIds,
    /// A handle of the file system.
    fs: OwnedFd,
    /// Held from the choice of an id until the kernel counts something for it.
    choice: Mutex<()>,
}

impl ProjectQuota {
    /// What quotas count in.
    pub(crate) const UNIT: u64 = 4096;

    /// The quotas of the file system of `parent`, below which the volumes are.
    pub(crate) fn new(parent: &Folder, ids: ProjectIds) -> Result<Self> {
        enforced(parent)?;
        let fs = parent.as_fd().try_clone_to_owned().map_err(parent.failed("open", ""))?;
        Ok(Self { ids, fs, choice: Mutex::new(()) })
    }

    /// Makes an empty folder a project of its own, of at most `size`; answers its id.
    pub(crate) fn assign(&self, folder: &Folder, size: Bytes) -> Result<u32> {
        let _choice = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.free_id()?;
        sys::set_project(folder.as_fd(), id).map_err(folder.failed("set the project id of", ""))?;
        self.limit(id, size)?;
        Ok(id)
    }

    /// Sees to it that `folder` is the project `id`, of at most `size`.
    ///
    /// # Errors
    /// FailedPrecondition where it is another project, or none: by that id the limit of another volume could be changed.
    pub(crate) fn ensure(&self, folder: &Folder, id: u32, size: Bytes) -> Result<()> {
        let found = project_of(folder)?;
        if found != Some(id) {
            return Err(Error::precondition(format!(
                "{} is {} and not project {id}, as its record says: copy its files into a new volume, or, where nothing \
                 else on the file system is project {id}, `chattr -R -p {id} +P` it",
                folder.path().display(),
                found.map_or_else(|| "no project".to_owned(), |found| format!("project {found}")),
            )));
        }
        if self.project(id)?.limit == size.get() { Ok(()) } else { self.limit(id, size) }
    }

    /// Sees to it that a folder is a project of its own, of at most `size`, and that it was one before there was anything in
    /// it.
    pub(crate) fn assign_again(&self, folder: &Folder, size: Bytes) -> Result<()> {
        match project_of(folder)? {
            Some(id) => self.ensure(folder, id, size),
            None => self.assign(folder, size).map(drop),
        }
    }

    /// The project that a folder is; none where it was made when there were no quotas.
    pub(crate) fn of(&self, folder: &Folder) -> Result<Option<u32>> {
        project_of(folder)
    }

    /// What a project takes.
    pub(crate) fn used(&self, id: u32) -> Result<Bytes> {
        Ok(Bytes::new(self.project(id)?.used))
    }

    /// Takes away the limit of a folder that is about to be removed, so that the file system forgets its project with
    /// the last of its files: else the list of projects would grow with every volume there ever was. To be called while
    /// the folder is in its place, since later the id may be another's. Where the project is known it must still be
    /// that: who owns a folder can make it any other.
    pub(crate) fn forget(&self, folder: &Folder, known: Option<u32>) -> io::Result<()> {
        match sys::inherited_project(folder.as_fd())? {
            Some(id) if known.is_none_or(|known| known == id) => sys::set_limit(self.fs.as_fd(), id, 0),
            _ => Ok(()),
        }
    }

    fn limit(&self, id: u32, size: Bytes) -> Result<()> {
        sys::set_limit(self.fs.as_fd(), id, size.get())
            .map_err(|error| Error::io(format!("cannot set the quota of project {id} to {size}"), error))
    }

    fn project(&self, id: u32) -> Result<sys::Project> {
        sys::project(self.fs.as_fd(), id)
            .map_err(|error| Error::io(format!("cannot read the quota of project {id}"), error))
    }

    /// An id that nothing on the file system has, beginning anywhere, so that two backends on it seldom meet.
    fn free_id(&self) -> Result<u32> {
        let ProjectIds { first, last } = self.ids;
        let span = last - first + 1;
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::io("cannot read random bytes for a project id", error))?;
        let start = u32::from_ne_bytes(random) % span;
        for offset in 0..span.min(ATTEMPTS) {
            let id = first + ((u64::from(start) + u64::from(offset)) % u64::from(span)) as u32;
            if !self.project(id)?.is_used {
                return Ok(id);
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "no project id from {first} to {last} is free: make `project_ids` larger, or wait for the trash to empty"
            ),
        ))
    }
}

/// The project that what is made in the folder inherits.
fn project_of(folder: &Folder) -> Result<Option<u32>> {
    sys::inherited_project(folder.as_fd()).map_err(folder.failed("read the project id of", ""))
}

/// What `check` says of the quotas at `root`.
pub(crate) fn check(root: &Path) -> Finding {
    let enforced =
        Folder::at(root).map_err(|error| Error::io("cannot open the root", error)).and_then(|root| enforced(&root));
    match enforced {
        Ok(()) => Finding::ok(format!("the file system of {} enforces project quotas", root.display())),
        Err(error) => Finding::error(error.report(), HOW_TO_ENABLE),
    }
}

/// Proves that project quotas are enforced on the file system of `folder`.
fn enforced(folder: &Folder) -> Result<()> {
    let place = folder.path().display();
    match sys::is_enforced(folder.as_fd()) {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::io(format!("cannot read the quotas of {place}: CAP_SYS_ADMIN is needed"), error));
        }
        off => {
            let error = Error::precondition(format!(
                "the file system of {place} does not enforce project quotas: enable them ({HOW_TO_ENABLE}), or say \
                 `quota: none`"
            ));
            return Err(match off {
                Err(source) => error.caused_by(source),
                Ok(_) => error,
            });
        }
    }
    match project_of(folder)? {
        None => Ok(()),
        Some(id) => Err(Error::precondition(format!(
            "{place} belongs to project {id} itself, and nothing could be moved out of it: use a root outside of any \
             project, or `chattr -P` it while it is empty"
        ))),
    }
}
