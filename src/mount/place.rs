//! A place in the tree of files where a mount is, or goes.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::namespace::Namespace;
use super::root::{self, FailedMount, LOOK, Root, statx};
use super::{ANSWER, Servers};

/// How long an unmount that is refused as busy is tried again: such answers are mostly of a moment (a program that
/// was just started and still holds a descriptor).
const BUSY: Duration = Duration::from_secs(2);
/// How long the last unmount of a file system on the network may take to write what is not written yet.
const WRITTEN: Duration = Duration::from_secs(10);

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Missing,
    /// A directory without a mount.
    Directory,
    /// A regular file without a mount.
    File,
    /// Something on which nothing can be mounted: a symbolic link, a device.
    Other,
    /// A mount.
    Mount(Root),
    /// A mount whose file system has failed: it does not even tell what is at its top.
    Failed(FailedMount),
    /// A mount whose server is gone for good.
    Dead,
}

/// What is at a place, where that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closely {
    Seen(Seen),
    /// A mount whose server does not answer.
    Silent,
}

/// What a mount goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For a file system.
    Directory,
    /// For a device.
    File,
}

/// A name in an open folder. Links in the way to the folder are followed, as an admin may have moved the orchestrator's
/// folder with one; the name itself never is.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The place of this path, or `None` where nothing can be: its folder does not exist, or is no folder.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        let (above, name) = split(path)?;
        match open_folder(above) {
            Ok(folder) => Ok(Some(Self { folder, name, path: path.into() })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(folder_error(above, error)),
        }
    }

    /// The place of this path in a namespace where mounts may be made in it. Missing folders above are made.
    pub(super) fn make(path: &Path, namespace: &Namespace) -> Result<Self> {
        let (above, name) = split(path)?;
        let mut missing = Vec::new();
        let mut existing = above;
        let mut folder = loop {
            match (open_folder(existing), split(existing)) {
                (Ok(folder), _) => break folder,
                (Err(Errno::NOENT), Ok((next, name))) => {
                    missing.push(name);
                    existing = next;
                }
                (Err(error), _) => return Err(folder_error(existing, error)),
            }
        };
        let seen = statx(folder.as_fd(), Path::new(""), LOOK | AtFlags::EMPTY_PATH)
            .map_err(|error| folder_error(existing, error))?;
        namespace.check(seen.stx_mnt_id, existing)?;
        for name in missing.iter().rev() {
            let made = match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {
                    rustix::fs::openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
                }
                Err(error) => Err(error),
            };
            folder = made.map_err(|error| Error::io(format!("cannot make the folder {}", above.display()), error))?;
        }
        Ok(Self { folder, name, path: path.into() })
    }

    /// What is there, without asking a server.
    pub(super) fn look(&self) -> Result<Seen> {
        let seen = match statx(self.folder.as_fd(), Path::new(&self.name), LOOK) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => return Ok(Seen::Missing),
            Err(error) if is_dead(error) => return Ok(Seen::Dead),
            Err(Errno::IO | Errno::SHUTDOWN) => {
                return match root::failed_mount(self.folder.as_fd(), Path::new(&self.name))? {
                    Some(mount) => Ok(Seen::Failed(mount)),
                    None => Err(self.error("look at", Errno::IO)),
                };
            }
            Err(error) => return Err(self.error("look at", error)),
        };
        if seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Ok(Seen::Mount(Root::from(&seen)));
        }
        Ok(match FileType::from_raw_mode(seen.stx_mode.into()) {
            FileType::Directory => Seen::Directory,
            FileType::RegularFile => Seen::File,
            _ => Seen::Other,
        })
    }

    /// What is there, and whether its server still answers.
    fn look_closely(&self, questions: &Arc<Servers>) -> Result<Closely> {
        let seen = self.look()?;
        Ok(match seen {
            Seen::Mount(root) => match self.ask(questions, root)? {
                Some(Err(error)) if is_dead(error) => Closely::Seen(Seen::Dead),
                Some(_) => Closely::Seen(seen),
                None => Closely::Silent,
            },
            seen => Closely::Seen(seen),
        })
    }

    /// Asks the server of the mount that is there whether it is there still; `None` where it does not answer.
    fn ask(&self, questions: &Arc<Servers>, root: Root) -> Result<Option<rustix::io::Result<()>>> {
        let (folder, name) = (self.held()?, self.name.clone());
        questions.ask(&root.device(), ANSWER, move || {
            // The mount is held open no longer than the question takes: it is to be unmounted.
            rustix::fs::openat(&folder, &name, HANDLE, Mode::empty()).and_then(rustix::fs::fstatfs).map(drop)
        })
    }

    /// What is there once every mount whose server is gone has been taken away.
    ///
    /// # Errors
    /// Where its server is silent: nobody knows whether it is gone.
    pub(super) fn look_alive(&self, questions: &Arc<Servers>) -> Result<Seen> {
        loop {
            match self.look_closely(questions)? {
                Closely::Seen(Seen::Dead) => self.unmount_dead()?,
                Closely::Seen(seen) => return Ok(seen),
                Closely::Silent => {
                    return Err(Error::internal(format!(
                        "what is mounted at {} does not answer: see whether its server runs, and the network between",
                        self.path.display()
                    )));
                }
            }
        }
    }

    /// Takes away all mounts that show `root`; `served` says that a server on the network has it.
    ///
    /// # Errors
    /// FailedPrecondition for a mount of somebody else's, which is left alone.
    pub(super) fn unmount_all(&self, questions: &Arc<Servers>, root: Option<Root>, served: bool) -> Result<()> {
        loop {
            match (self.look()?, root) {
                (Seen::Mount(seen), Some(root)) if seen == root => self.unmount(questions, served)?,
                (Seen::Failed(mount), Some(root)) if mount.is_of(root) => self.unmount(questions, served)?,
                (Seen::Mount(_) | Seen::Failed(_), _) if self.look_closely(questions)? != Closely::Seen(Seen::Dead) => {
                    return Err(self.foreign_mount());
                }
                (Seen::Mount(_) | Seen::Failed(_) | Seen::Dead, _) => self.unmount_dead()?,
                _ => return Ok(()),
            }
        }
    }

    /// The refusal to touch what somebody else mounted.
    pub(super) fn foreign_mount(&self) -> Error {
        Error::precondition(format!(
            "something is mounted at {}, and the records of this node do not know it as this volume: unmount it if it is \
             not needed (after a state folder was lost, what was published before is of this kind)",
            self.path.display()
        ))
    }

    /// The refusal to use a file system that answers no more.
    pub(super) fn failed_mount(&self) -> Error {
        Error::precondition(format!(
            "the file system that is mounted at {} has failed: see the kernel's log (dmesg), then unpublish and unstage \
             its volume",
            self.path.display()
        ))
    }

    /// Opens what is there as a handle alone (`O_PATH`): nothing is asked of a device or a server.
    pub(super) fn open(&self) -> std::io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.folder, &self.name, HANDLE, Mode::empty())?)
    }

    /// Makes what a mount goes on.
    pub(super) fn create(&self, kind: Kind) -> Result<()> {
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(&self.folder, &self.name, Mode::from_raw_mode(0o750)),
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&self.folder, &self.name, flags, Mode::from_raw_mode(0o600)).map(drop)
            }
        };
        made.map_err(|error| self.error("create", error))
    }

    /// Puts a mount that is attached nowhere yet on what is there.
    pub(super) fn attach(&self, mount: BorrowedFd<'_>) -> Result<()> {
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        let here = self.open().map_err(|error| self.error("open", error))?;
        rustix::mount::move_mount(mount, "", &here, "", empty).map_err(|error| self.error("mount on", error))
    }

    /// Takes the topmost mount away. What is not a mount (any more) is well so.
    fn unmount(&self, questions: &Arc<Servers>, served: bool) -> Result<()> {
        let until = Instant::now() + BUSY;
        loop {
            let done = if served { self.unmount_served()? } else { unmount(&self.folder, &self.name) };
            match done {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
                // There is no event to wait for: nobody tells when the last user of a mount goes.
                Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                // What uses it may be a call that its server never answers, and that nobody can end. Only this mount goes,
                // others may show the same file system; and only where the server does not answer now, or a healthy
                // volume would be taken from under the programs that have files open on it.
                Err(Errno::BUSY) if self.is_silent(questions)? => return self.unmount_with(UnmountFlags::DETACH),
                Err(Errno::BUSY) => {
                    return Err(Error::precondition(format!(
                        "{} is in use: end the programs that have files open or a working directory in it",
                        self.path.display()
                    ))
                    .retry(true));
                }
                Err(error) => return Err(self.error("unmount", error)),
            }
        }
    }

    /// The same for a file system that a server on the network has. The last unmount of one writes out what is not written
    /// yet, for which it would wait for a server that is gone: that goes on without this call. The mount has left its place
    /// before.
    fn unmount_served(&self) -> Result<rustix::io::Result<()>> {
        let (folder, name) = (self.held()?, self.name.clone());
        let (ended, end) = mpsc::channel();
        let work = move || {
            // Who waits may have given up.
            let _ = ended.send(unmount(&folder, &name));
        };
        let thread = std::thread::Builder::new().name("unmount".into()).spawn(work);
        thread.map_err(|error| self.error("unmount", error))?;
        match end.recv_timeout(WRITTEN) {
            Ok(done) => Ok(done),
            Err(_) if matches!(self.look()?, Seen::Mount(_) | Seen::Failed(_) | Seen::Dead) => Ok(Err(Errno::BUSY)),
            Err(_) => {
                tracing::warn!(
                    path = %self.path.display(),
                    "unmounted, and the kernel has data of it that is not on the server yet: it is written when the server answers"
                );
                Ok(Ok(()))
            }
        }
    }

    /// Whether what is mounted is served by a program or over a network, and the server does not answer.
    fn is_silent(&self, questions: &Arc<Servers>) -> Result<bool> {
        let fs_type = root::fs_type_of(self.folder.as_fd(), Path::new(&self.name))?;
        if !fs_type.is_some_and(|fs_type| root::is_served_elsewhere(&fs_type)) {
            return Ok(false);
        }
        match self.look()? {
            Seen::Mount(root) => Ok(!matches!(self.ask(questions, root)?, Some(Ok(())))),
            _ => Ok(false),
        }
    }

    /// Takes a mount away whose server is gone: it holds nothing that could still be written. Whoever waits for a program
    /// that is the server is freed; a server on the network may have other volumes, whose writes such force would lose.
    fn unmount_dead(&self) -> Result<()> {
        let fs_type = root::fs_type_of(self.folder.as_fd(), Path::new(&self.name)).unwrap_or_default();
        let fuse = fs_type.is_some_and(|fs_type| root::is_fuse(&fs_type));
        self.unmount_with(if fuse { UnmountFlags::FORCE | UnmountFlags::DETACH } else { UnmountFlags::DETACH })
    }

    fn unmount_with(&self, flags: UnmountFlags) -> Result<()> {
        rustix::mount::unmount(by_descriptor(&self.folder, &self.name), flags | UnmountFlags::NOFOLLOW)
            .map_err(|error| self.error("unmount", error))
    }

    /// Removes what a mount was on, where it is empty: a directory, or a file without a byte.
    pub(super) fn remove(&self) -> Result<()> {
        let flags = match self.look()? {
            Seen::Directory => AtFlags::REMOVEDIR,
            Seen::File if self.is_empty_file()? => AtFlags::empty(),
            _ => return Ok(()),
        };
        match rustix::fs::unlinkat(&self.folder, &self.name, flags) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(()),
            Err(error) => Err(self.error("remove", error)),
        }
    }

    fn is_empty_file(&self) -> Result<bool> {
        rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|seen| seen.st_size == 0)
            .map_err(|error| self.error("look at", error))
    }

    /// The folder for a thread that may outlive the call.
    fn held(&self) -> Result<OwnedFd> {
        self.folder.try_clone().map_err(|error| self.error("open", error))
    }

    fn error(&self, what: &str, error: impl Into<std::io::Error>) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}

/// A path of the very name in the very folder that was looked at: umount2(2) takes no descriptor.
fn by_descriptor(folder: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

fn unmount(folder: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    rustix::mount::unmount(by_descriptor(folder, name), UnmountFlags::NOFOLLOW)
}

/// Whether a mount that shows `root` is at the path.
pub(super) fn is_mounted(path: &Path, root: Root) -> Result<bool> {
    match Place::find(path)? {
        Some(place) => Ok(place.look()? == Seen::Mount(root)),
        None => Ok(false),
    }
}

/// Opens the mount at the path as a handle alone, where it is one that shows `root`. What is opened is what was looked
/// at, whatever is mounted there a moment later.
pub(super) fn open_mounted(path: &Path, root: Root) -> Result<Option<OwnedFd>> {
    let opened = Place::find(path)?.and_then(|place| place.open().ok());
    match opened {
        Some(opened) if Root::of(&opened)? == root => Ok(Some(opened)),
        _ => Ok(None),
    }
}

/// What is opened as a handle alone.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, FOLDER, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

fn folder_error(path: &Path, error: Errno) -> Error {
    match error {
        Errno::NOTDIR => Error::precondition(format!("{} is not a folder: remove what is there", path.display())),
        Errno::LOOP => Error::precondition(format!("{} has a loop of links in it: remove it", path.display())),
        error => Error::io(format!("cannot open the folder {}", path.display()), error),
    }
}

fn split(path: &Path) -> Result<(&Path, OsString)> {
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Ok((above, name.into())),
        _ => Err(Error::invalid(format!("{} has no folder above it: give another path", path.display()))),
    }
}

/// The answers of a file system whose server is gone for good.
fn is_dead(error: Errno) -> bool {
    matches!(error, Errno::STALE | Errno::NOTCONN)
}
