//! The socket file of a plugin.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// As many clients may wait to be accepted as the kernel allows (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long another process may hold the lock of a socket's folder: a host does for an instant.
const PATIENCE: Duration = Duration::from_secs(2);

/// A listening Unix socket with a file of its own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: OwnedFd,
    /// Device and inode of the file: what tells ours from a successor's.
    file: (u64, u64),
}

impl Socket {
    /// The longest path, in bytes. What `sun_path` holds without its closing NUL is 107; one of them is for the dot of
    /// the name under which the socket is made.
    pub const PATH_LIMIT: usize = 106;

    /// Makes a listening socket at `path`, with mode 0600 from its first instant; missing folders are made with mode
    /// 0700. The file appears in one step, when the socket accepts already. What a dead process left at the path is
    /// replaced. Nothing is left beside the socket. All of it happens on a thread that may block.
    ///
    /// # Errors
    /// [`FailedPrecondition`](dunnage_driver_api::ErrorKind::FailedPrecondition) where another process accepts at the
    /// path or holds the lock of its folder, or something that is no socket lies there; `InvalidArgument` where the path
    /// is longer than [`PATH_LIMIT`](Self::PATH_LIMIT) or has no file name.
    pub async fn bind(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || Self::make(&path))
            .await
            .map_err(|error| Error::internal("the thread that makes a socket failed").caused_by(error))?
    }

    fn make(path: &Path) -> Result<Self> {
        let (length, limit) = (path.as_os_str().len(), Self::PATH_LIMIT);
        if length > limit {
            return Err(Error::invalid(format!(
                "the socket path {} has {length} bytes, at most {limit} are possible: use a shorter folder",
                path.display()
            )));
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::invalid(format!("{} is no path of a socket: give a file in a folder", path.display())));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| Error::io(format!("cannot make the folder {} of the socket", folder.display()), error))?;
        let _one_at_a_time = lock_soon(folder)?;
        check_place(path)?;

        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        let hidden = folder.join(hidden);
        // A host that died between bind and rename left it; the lock on the folder says that nobody else is there.
        remove_if(&hidden, |metadata| metadata.file_type().is_socket());
        let made = listen(&hidden).and_then(|listener| {
            let metadata = fs::symlink_metadata(&hidden)?;
            fs::rename(&hidden, path)?;
            Ok(Self { path: path.to_owned(), listener, file: (metadata.dev(), metadata.ino()) })
        });
        made.map_err(|error| {
            remove_if(&hidden, |metadata| metadata.file_type().is_socket());
            Error::io(format!("cannot make the socket {}", path.display()), error)
        })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listener of the runtime that this is called in; the file stays as long as this value.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Without the folder there is no file either. One that is locked is not waited for here, on a thread of the
        // runtime: whoever makes the socket next replaces the file.
        if let Ok(Some(_lock)) = try_lock(folder) {
            remove_if(&self.path, |metadata| (metadata.dev(), metadata.ino()) == self.file);
        }
    }
}

/// Locks the folder itself against other hosts that are just making or removing a socket there; `None` where one has it.
fn try_lock(folder: &Path) -> Result<Option<OwnedFd>> {
    let failed = |error| Error::io(format!("cannot lock the folder {} of the socket", folder.display()), error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(opened)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn lock_soon(folder: &Path) -> Result<OwnedFd> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(lock) = try_lock(folder)? {
            return Ok(lock);
        }
        if Instant::now() >= until {
            return Err(Error::precondition(format!(
                "the folder {} of the socket is locked by another process, which may be another host, or a program like \
                 flock(1): `lslocks` names it; stop it or configure another folder",
                folder.display()
            ))
            .retry(true));
        }
        std::thread::sleep(PATIENCE / 100);
    }
}

/// The place is free, or a socket of the dead lies there.
fn check_place(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::precondition(format!(
            "{} exists and is no socket: remove it or configure another path",
            path.display()
        )));
    }
    match connect(path) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // EAGAIN: somebody listens whose queue is full.
        Ok(()) | Err(Errno::AGAIN) => Err(Error::precondition(format!(
            "another process accepts at the socket {}: stop it or configure another path",
            path.display()
        ))),
        Err(error) => Err(Error::io(format!("cannot tell whether anybody accepts at {}", path.display()), error)),
    }
}

fn connect(path: &Path) -> Result<(), Errno> {
    let socket = unbound()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn unbound() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    // The file takes its mode from the socket when it is bound; the umask can only narrow it.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Removes the file if it is what the caller thinks. A failure shows where the path is used next.
fn remove_if(path: &Path, is_ours: impl FnOnce(&fs::Metadata) -> bool) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| is_ours(&metadata)) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
