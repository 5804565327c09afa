//! An open folder, and what is done beneath it: the one way drivers open files.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::capacity::Bytes;
use crate::error::{Error, ErrorKind, Result};

/// No way out of the folder: not upwards, not through a link of any kind, not onto another file system.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// An open folder. Everything is done relative to its descriptor, so that it stays the same folder whatever happens to
/// its path. A `name` is always that of one entry: what climbs, is absolute, has a slash or a NUL is refused, and a
/// symlink in the way is an error (ELOOP), never followed.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// How large a file system is and what of it is free, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// All that an ordinary user could ever fill.
    pub total: Bytes,
    /// What an ordinary user may still fill.
    pub available: Bytes,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

impl Sizes {
    /// That there is room for `more` of a copy, and for some more: what a copy takes last is what a volume in use would
    /// miss.
    ///
    /// # Errors
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) where only the last hundredth of the disk would be left.
    pub fn refuse_last(&self, more: Bytes) -> Result<()> {
        let kept = Bytes::new(self.total.get() / 100);
        if self.available >= more.plus(kept) {
            return Ok(());
        }
        let message = format!(
            "the disk of the root has {} left, and a copy leaves the last {kept} of it to volumes in use: make room",
            self.available
        );
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }
}

impl Folder {
    /// Opens the folder an admin named. Symlinks in `path` are followed: it is the admin's own. Nothing a request says
    /// may come here.
    ///
    /// # Errors
    /// As open(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// A folder that is open already. Messages name it by `shown`, which need be no path.
    pub fn new(fd: OwnedFd, shown: impl Into<PathBuf>) -> Self {
        Self { fd, path: shown.into() }
    }

    /// The same folder through `fd`, which the caller opened in another mount. Messages name it by the same path.
    pub fn seen_through(&self, fd: OwnedFd) -> Self {
        Self { fd, path: self.path.clone() }
    }

    /// The same folder, opened anew.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn reopen(&self) -> io::Result<Self> {
        self.near(".")
    }

    /// The folder that it lies in now: whoever asks sees to it that this is the one meant.
    ///
    /// # Errors
    /// As openat2(2).
    pub(super) fn parent(&self) -> io::Result<Self> {
        self.near("..")
    }

    fn near(&self, which: &str) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(self.seen_through(rustix::fs::openat2(&self.fd, which, flags, Mode::empty(), resolve)?))
    }

    /// Its path as it was opened: for messages alone.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens, and with `CREATE` makes, a file.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: u32) -> io::Result<File> {
        let name = one(name.as_ref())?;
        Ok(rustix::fs::openat2(&self.fd, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), BENEATH)?.into())
    }

    /// Opens a folder `O_PATH`: to be mounted or compared, not to be read.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_path(&self, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
        self.open(name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0).map(Into::into)
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let path = self.path.join(name.as_ref());
        Ok(Self { fd: self.open(name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?.into(), path })
    }

    /// Makes a folder of exactly this mode, whatever the umask; not yet durable.
    ///
    /// # Errors
    /// As mkdirat(2): EEXIST where the name is taken.
    pub fn make_folder(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(mode);
        // Without the owner's own bits it could not be opened below; they are set right by the fchmod.
        rustix::fs::mkdirat(&self.fd, one(name.as_ref())?, mode | Mode::RWXU)?;
        let folder = self.folder(name)?;
        rustix::fs::fchmod(&folder.fd, mode)?;
        Ok(folder)
    }

    /// Opens a folder, or makes it where there is none. Durable either way: one that is there may have been made by a
    /// process that was killed before it could sync.
    ///
    /// # Errors
    /// As openat2(2), mkdirat(2) and fsync(2).
    pub fn folder_or_make(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let folder = match self.make_folder(name.as_ref(), mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.folder(name),
            made => made,
        };
        self.sync()?;
        folder
    }

    /// Renames an entry into `to` (which may be this folder), over a file that is there; not yet durable.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Self, new_name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, one(name.as_ref())?, &to.fd, one(new_name.as_ref())?)?)
    }

    /// Gives a file a second name in `to` (which may be this folder); fails where that is taken. Not yet durable.
    ///
    /// # Errors
    /// As linkat(2).
    pub fn link(&self, name: impl AsRef<OsStr>, to: &Self, new_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (name, new_name) = (one(name.as_ref())?, one(new_name.as_ref())?);
        Ok(rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty())?)
    }

    /// Removes what is not a folder; not yet durable.
    ///
    /// # Errors
    /// As unlinkat(2): EISDIR where it is a folder.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, one(name.as_ref())?, AtFlags::empty())?)
    }

    /// Removes an empty folder; not yet durable.
    ///
    /// # Errors
    /// As unlinkat(2): ENOTEMPTY where it is not empty.
    pub fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, one(name.as_ref())?, AtFlags::REMOVEDIR)?)
    }

    /// What an entry is; a symlink is one itself.
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.fd, one(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The names in it and their kinds (`Unknown` where the file system does not say), in no order, without `.` and
    /// `..`.
    ///
    /// # Errors
    /// As getdents(2), also in the middle.
    pub fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<(OsString, FileType)>>> {
        Ok(Dir::read_from(&self.fd)?.filter_map(|entry| match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
            Ok(entry) => Some(Ok((OsString::from_vec(entry.file_name().to_bytes().into()), entry.file_type()))),
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn is_empty(&self) -> io::Result<bool> {
        self.entries()?.next().transpose().map(|first| first.is_none())
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Makes a file of these bytes and makes them durable; its name is not yet. A file that is there is overwritten;
    /// after an error there is none.
    ///
    /// # Errors
    /// As openat2(2), write(2) and fsync(2).
    pub fn write(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> io::Result<()> {
        let name = name.as_ref();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let written = self.open(name, flags, 0o600).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.inspect_err(|_| {
            // On a full disk its few bytes matter; where even this fails the next attempt overwrites it.
            let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_file();
            let _ = self.stat(name).is_ok_and(is_file).then(|| self.unlink(name));
        })
    }

    /// Reads a file of at most `limit` bytes to its end, into `buffer`, which keeps its memory for the next one.
    ///
    /// # Errors
    /// As openat2(2) and read(2); `FileTooLarge` for a file that is.
    pub fn read(&self, name: impl AsRef<OsStr>, buffer: &mut Vec<u8>, limit: u64) -> io::Result<()> {
        /// More than most files of a store have, which are then read in one go.
        const MOST: usize = 1024;
        buffer.clear();
        buffer.reserve(MOST.min(limit.try_into().unwrap_or(MOST)));
        // NONBLOCK, so that a pipe somebody put there cannot hold the caller.
        let file = self.open(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
        if file.take(limit + 1).read_to_end(buffer)? as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }

    /// How large its file system is and what is free.
    ///
    /// # Errors
    /// As fstatvfs(3).
    pub fn sizes(&self) -> io::Result<Sizes> {
        let fs = rustix::fs::fstatvfs(&self.fd)?;
        Ok(Sizes {
            total: Bytes::new(usable(fs.f_blocks, fs.f_bfree, fs.f_bavail).saturating_mul(fs.f_frsize)),
            available: Bytes::new(fs.f_bavail.saturating_mul(fs.f_frsize)),
            read_only: fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Turns an error number into an error that names the entry: `.map_err(folder.failed("open", name))`.
    pub fn failed(&self, what: &str, name: impl AsRef<OsStr>) -> impl FnOnce(io::Error) -> Error {
        let message = format!("cannot {what} {}", self.path.join(name.as_ref()).display());
        move |error| Error::io(message, error)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an ordinary user could ever fill: all blocks but those kept for root. A file system may say anything, also that
/// more is available than free.
fn usable(blocks: u64, free: u64, available: u64) -> u64 {
    blocks.saturating_sub(free.saturating_sub(available))
}

/// The name, if it is that of one entry: mkdirat, renameat and unlinkat have no RESOLVE_BENEATH to ask for.
fn one(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        let message = format!("{name:?} is not the name of one entry of a folder");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
