//! Sockets beside what may be in their place.

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
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
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
    let make: [&dyn Fn(); 3] = [&|| fs::write(&path, "precious").unwrap(), &|| fs::create_dir(&path).unwrap(), &|| {
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
