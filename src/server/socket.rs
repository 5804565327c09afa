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
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use dunnage_driver_api::ErrorKind;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugins/a.csi.dunnage.dev/csi.sock");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_private_accepts_and_leaves_nothing() {
        let (_folder, path) = place();
        let socket = Socket::make(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        UnixStream::connect(&path).unwrap();
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["csi.sock"]);
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_exists_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let socket = Socket::make(&folder.path().join("csi.sock")).unwrap();
        assert_eq!((mode(folder.path()), mode(socket.path())), (0o755, 0o600));
    }

    #[test]
    fn the_second_host_on_a_socket_is_refused_and_the_first_stays() {
        let (_folder, path) = place();
        let first = Socket::make(&path).unwrap();
        let error = Socket::make(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        UnixStream::connect(first.path()).unwrap();
    }

    #[test]
    fn a_listener_whose_queue_is_full_counts_as_alive() {
        let (folder, path) = (tempfile::tempdir().unwrap(), "busy.sock");
        let path = folder.path().join(path);
        let busy = unbound().unwrap();
        rustix::net::bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert_eq!(connect(&path), Err(Errno::AGAIN));
        assert_eq!(Socket::make(&path).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let (_folder, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(path.with_file_name(".csi.sock")).unwrap());
        let _socket = Socket::make(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(!path.with_file_name(".csi.sock").exists());
    }

    #[test]
    fn what_is_no_socket_is_refused_and_kept() {
        let (folder, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        drop(UnixListener::bind(&elsewhere).unwrap());
        let make: [&dyn Fn(); 3] =
            [&|| fs::write(&path, "precious").unwrap(), &|| fs::create_dir(&path).unwrap(), &|| {
                std::os::unix::fs::symlink(&elsewhere, &path).unwrap()
            }];
        for make in make {
            make();
            let error = Socket::make(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
            assert!(error.to_string().contains("is no socket"), "{error}");
            fs::symlink_metadata(&path).unwrap();
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
    }

    #[test]
    fn a_successor_at_the_path_is_not_removed() {
        let (_folder, path) = place();
        let socket = Socket::make(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_and_the_longest_works() {
        let folder = tempfile::tempdir().unwrap();
        let longest = folder.path().join("x".repeat(Socket::PATH_LIMIT - folder.path().as_os_str().len() - 1));
        let _socket = Socket::make(&longest).unwrap();
        UnixStream::connect(&longest).unwrap();
        let error = Socket::make(&longest.with_extension("y")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("108 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_that_somebody_locked_holds_no_thread_of_the_runtime() {
        let (_folder, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let lock = try_lock(folder).unwrap().unwrap();
        let bound = tokio::spawn({
            let path = path.clone();
            async move { Socket::bind(&path).await }
        });
        // The one thread of this runtime goes on with other things while the lock is held.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!bound.is_finished(), "the lock was not waited for");
        let error = tokio::time::timeout(PATIENCE * 10, bound).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        let said = error.to_string();
        assert!(said.contains(folder.to_str().unwrap()) && said.contains("lslocks"), "{said}");
        drop(lock);
        Socket::bind(&path).await.unwrap();
    }

    #[test]
    fn a_lock_that_is_given_up_soon_is_waited_for() {
        let (_folder, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let lock = try_lock(path.parent().unwrap()).unwrap().unwrap();
        let made = std::thread::spawn({
            let path = path.clone();
            move || Socket::make(&path).map(drop)
        });
        std::thread::sleep(PATIENCE / 50);
        drop(lock);
        made.join().unwrap().unwrap();
    }

    #[test]
    fn a_socket_whose_folder_is_locked_is_left_to_whoever_comes_next() {
        let (_folder, path) = place();
        let socket = Socket::make(&path).unwrap();
        let lock = try_lock(path.parent().unwrap()).unwrap().unwrap();
        let (done, dropped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(socket);
            done.send(()).unwrap();
        });
        dropped.recv_timeout(PATIENCE * 10).expect("the end of a socket waits for the lock");
        drop(lock);
        assert!(path.exists());
        Socket::make(&path).unwrap();
    }
}
