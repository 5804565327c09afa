//! A file system whose server does what a test wants: it answers, is silent, fails, or goes.

mod protocol;
mod tree;

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::faults::{Faults, Outcome};
use protocol::{INIT, Request, STATFS};
use tree::Tree;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted FUSE file system that keeps its files in memory, and can fail as a network file system does.
///
/// Silent, it takes every request and answers none: what asks the server (`stat`, `statfs`, `open`, `readdir`, reads and
/// writes) hangs, unkillable. What never asks it (`open` with `O_PATH` of what is known, binding it elsewhere, `statx`
/// with `AT_STATX_DONT_SYNC`) does not.
pub struct FuseStore {
    target: PathBuf,
    mounted: bool,
    server: Arc<Server>,
    connection: Option<Connection>,
}

#[derive(Default)]
struct Server {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tree: Tree,
    silent: bool,
    bad: Option<BadSectors>,
    /// What is not answered while it is not silent.
    slow: Option<BadSectors>,
    /// Whether fsync of a folder fails.
    unsynced: bool,
    /// What goes wrong with the operations.
    faults: Option<Arc<Faults>>,
    /// What came while it was silent, to be answered when it speaks again.
    held: Vec<Request>,
}

/// Bytes of a file that cannot be read.
#[derive(Debug, Clone, Copy)]
pub struct BadSectors {
    /// The inode of the file.
    pub inode: u64,
    /// The first of them; all that follow are bad too.
    pub from: u64,
}

/// An open `/dev/fuse` and the thread that reads it. The kernel ends the connection when it is closed.
struct Connection {
    device: Arc<File>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl FuseStore {
    /// Mounts it, empty, on `target`, a directory. Needs root and `/dev/fuse`.
    ///
    /// # Errors
    /// Where the kernel has no FUSE or refuses the mount.
    pub fn mount(target: &Path) -> io::Result<Self> {
        let mut store = Self { target: target.into(), mounted: false, server: Arc::default(), connection: None };
        store.connect()?;
        Ok(store)
    }

    fn connect(&mut self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let options = std::ffi::CString::new(format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        ))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("dunnage-store", &self.target, "fuse", flags, options.as_c_str())?;
        self.mounted = true;
        self.connection = Some(Connection::new(device, self.server.clone())?);
        Ok(())
    }

    /// From now on nothing is answered.
    pub fn fall_silent(&self) {
        self.server.lock().silent = true;
    }

    /// Answers again, what was asked meanwhile too.
    pub fn answer(&self) {
        self.server.lock().silent = false;
        self.answer_held();
    }

    fn answer_held(&self) {
        let mut state = self.server.lock();
        for request in std::mem::take(&mut state.held) {
            if let Some(connection) = &self.connection {
                state.answer(&connection.device, &request);
            }
        }
    }

    /// From now on reads of these bytes, and of no others, hang. Without any, those that hang are answered.
    pub fn hang_reads(&self, slow: impl Into<Option<BadSectors>>) {
        let slow = slow.into();
        self.server.lock().slow = slow;
        if slow.is_none() {
            self.answer_held();
        }
    }

    /// From now on reads of these bytes, and of no others, are I/O errors.
    pub fn fail_reads(&self, bad: impl Into<Option<BadSectors>>) {
        self.server.lock().bad = bad.into();
    }

    /// Whether every fsync of a folder is an I/O error from now on. The names that it was to make durable are there all the
    /// same, as they are on a disk whose write failed.
    pub fn fail_folder_syncs(&self, fail: bool) {
        self.server.lock().unsynced = fail;
    }

    /// From now on operations go wrong as these say.
    pub(crate) fn fail_by(&self, faults: &Arc<Faults>) {
        self.server.lock().faults = Some(faults.clone());
    }

    /// How many requests hang.
    pub fn held(&self) -> usize {
        self.server.lock().held.len()
    }

    /// Waits until `count` calls of `statfs` hang.
    ///
    /// # Panics
    /// Where they do not come within a minute.
    pub fn wait_for_statfs(&self, count: usize) {
        let taken = |state: &State| state.held.iter().filter(|request| request.opcode() == STATFS).count();
        let waited = self.server.changed.wait_timeout_while(self.server.lock(), PATIENCE, |state| taken(state) < count);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = taken(&state);
        assert!(taken >= count, "{taken} calls of statfs came to {}, not {count}", self.target.display());
    }

    /// Its server dies: every call that hangs and every later one fails, and the mount stays.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.server.lock().held.clear();
    }

    /// A new server with the same files takes the place of the one before.
    ///
    /// # Errors
    /// Where it cannot be mounted.
    pub fn reconnect(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.disconnect();
        self.server.lock().silent = false;
        self.connect()
    }

    /// Unmounts it by force: every call that hangs ends with an error.
    ///
    /// # Errors
    /// Where it cannot be unmounted.
    pub fn release(mut self) -> io::Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> io::Result<()> {
        if self.mounted {
            rustix::mount::unmount(&self.target, UnmountFlags::FORCE | UnmountFlags::DETACH)?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for FuseStore {
    fn drop(&mut self) {
        // A test that failed may have unmounted it already.
        let _ = self.unmount();
    }
}

impl Connection {
    fn new(device: OwnedFd, server: Arc<Server>) -> io::Result<Self> {
        let device = Arc::new(File::from(device));
        let (stopped, stop) = io::pipe()?;
        let own = device.clone();
        let thread = std::thread::Builder::new().name("fuse-store".into()).spawn(move || {
            // An error says that the file system is unmounted.
            let _ = serve(&own, &stopped, &server);
        })?;
        Ok(Self { device, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked with it has printed.
            let _ = thread.join();
        }
    }
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer(&mut self, device: &File, request: &Request) {
        let bad =
            self.bad.is_some_and(|bad| request.reads(bad.inode, bad.from)) || self.unsynced && request.is_folder_sync();
        let outcome = request.effect().and_then(|(name, effect)| self.faults.as_ref()?.of_operation(name, effect));
        let answer = match outcome {
            _ if bad => Err(Errno::IO),
            None => request.run(&mut self.tree),
            Some(Outcome::Not(error)) => Err(error),
            Some(Outcome::Done(error)) => request.run(&mut self.tree).and(Err(error)),
        };
        if let Some(bytes) = request.reply(answer) {
            // One whose caller was interrupted, or whose file system is unmounted, is wanted by nobody.
            let _ = (&mut &*device).write_all(&bytes);
        }
    }
}

fn serve(mut device: &File, stopped: &PipeReader, server: &Server) -> io::Result<()> {
    let mut buffer = vec![0; protocol::BUFFER];
    loop {
        let mut ready = [PollFd::new(device, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        poll(&mut ready, None)?;
        if !ready[1].revents().is_empty() {
            return Ok(());
        }
        let length = match device.read(&mut buffer) {
            // The request was taken back before it was read.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => continue,
            read => read?,
        };
        let request = Request::new(&buffer[..length]);
        let mut state = server.lock();
        let is_slow = state.slow.is_some_and(|slow| request.reads(slow.inode, slow.from));
        if (state.silent || is_slow) && request.opcode() != INIT {
            if request.wants_an_answer() {
                state.held.push(request);
                server.changed.notify_all();
            }
            continue;
        }
        state.answer(device, &request);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::thread;

    use super::*;

    fn store(test: &str) -> Option<(tempfile::TempDir, FuseStore)> {
        let folder = crate::needs_root(test).then(|| tempfile::tempdir().unwrap())?;
        let store = FuseStore::mount(folder.path()).unwrap();
        Some((folder, store))
    }

    #[test]
    fn files_are_kept_like_on_a_disk() {
        let Some((folder, mut store)) = store("files_are_kept_like_on_a_disk") else { return };
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/new"), "text").unwrap();
        fs::rename(at("a/new"), at("a/file")).unwrap();
        fs::hard_link(at("a/file"), at("link")).unwrap();
        let file = File::options().write(true).open(at("link")).unwrap();
        file.set_len(100_000).unwrap();
        rustix::fs::fsync(&file).unwrap();
        assert_eq!(fs::read(at("a/file")).unwrap().len(), 100_000);
        assert_eq!(fs::remove_dir(at("a")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        fs::remove_file(at("a/file")).unwrap();
        fs::remove_dir(at("a")).unwrap();
        for number in 0..300 {
            fs::write(at(&format!("many-{number}")), "").unwrap();
        }
        drop(file);
        store.reconnect().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 301);
        assert!(fs::read(at("link")).unwrap().starts_with(b"text\0"));
    }

    #[test]
    fn zeros_are_holes() {
        use rustix::fs::{SeekFrom, seek};
        let Some((folder, _store)) = store("zeros_are_holes") else { return };
        let path = folder.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(40_000).unwrap();
        assert_eq!(seek(&file, SeekFrom::Data(0)), Err(Errno::NXIO));
        std::os::unix::fs::FileExt::write_all_at(&file, b"text", 20_000).unwrap();
        let asked = [SeekFrom::Data(0), SeekFrom::Data(20_001), SeekFrom::Hole(0), SeekFrom::Hole(20_001)];
        assert_eq!(asked.map(|from| seek(&file, from)), [Ok(16_384), Ok(20_001), Ok(0), Ok(20_480)]);
        assert_eq!(seek(&file, SeekFrom::Data(20_480)), Err(Errno::NXIO));
        assert_eq!(seek(&file, SeekFrom::Hole(39_999)), Ok(39_999));
    }

    #[test]
    fn a_read_that_fails_is_an_error_of_the_disk() {
        let Some((folder, store)) = store("a_read_that_fails_is_an_error_of_the_disk") else { return };
        let file = folder.path().join("file");
        fs::write(&file, [1; 100_000]).unwrap();
        store.fail_reads(BadSectors { inode: fs::metadata(&file).unwrap().ino(), from: 50_000 });
        let mut head = [0; 4096];
        File::open(&file).unwrap().read_exact(&mut head).unwrap();
        assert_eq!(fs::read(&file).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        store.fail_reads(None);
        assert_eq!(fs::read(&file).unwrap(), [1; 100_000]);
    }

    #[test]
    fn a_read_that_hangs_is_answered_later_and_holds_up_nothing_else() {
        let Some((folder, store)) = store("a_read_that_hangs_is_answered_later_and_holds_up_nothing_else") else {
            return;
        };
        let file = folder.path().join("file");
        fs::write(&file, [1; 100_000]).unwrap();
        store.hang_reads(BadSectors { inode: fs::metadata(&file).unwrap().ino(), from: 0 });
        let read = thread::spawn({
            let file = file.clone();
            move || fs::read(file).unwrap()
        });
        while store.held() == 0 {
            thread::yield_now();
        }
        fs::write(folder.path().join("other"), "text").unwrap();
        assert!(!read.is_finished());
        store.hang_reads(None);
        assert_eq!(read.join().unwrap(), [1; 100_000]);
    }

    #[test]
    fn a_sync_of_a_folder_that_fails_keeps_the_names_in_it() {
        let Some((folder, store)) = store("a_sync_of_a_folder_that_fails_keeps_the_names_in_it") else { return };
        let path = folder.path().join("file");
        let sync = |path: &Path| rustix::fs::fsync(File::open(path).unwrap());
        store.fail_folder_syncs(true);
        fs::write(&path, "text").unwrap();
        assert_eq!((sync(&path), sync(folder.path())), (Ok(()), Err(Errno::IO)));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        store.fail_folder_syncs(false);
        sync(folder.path()).unwrap();
    }

    #[test]
    fn a_silent_server_holds_its_callers_until_it_answers() {
        let Some((folder, store)) = store("a_silent_server_holds_its_callers_until_it_answers") else { return };
        store.fall_silent();
        let path = folder.path().to_owned();
        let call = thread::spawn(move || rustix::fs::statfs(&path).map(drop));
        store.wait_for_statfs(1);
        assert!(!call.is_finished());
        store.answer();
        call.join().unwrap().unwrap();
    }

    #[test]
    fn a_server_that_dies_or_is_unmounted_lets_its_callers_go() {
        let Some((folder, mut store)) = store("a_server_that_dies_or_is_unmounted_lets_its_callers_go") else { return };
        let hang = |store: &FuseStore| {
            store.fall_silent();
            let path = folder.path().to_owned();
            let call = thread::spawn(move || rustix::fs::statfs(&path).map(drop));
            store.wait_for_statfs(1);
            call
        };
        let call = hang(&store);
        store.disconnect();
        call.join().unwrap().unwrap_err();
        assert_eq!(rustix::fs::statfs(folder.path()).unwrap_err(), Errno::NOTCONN);
        store.reconnect().unwrap();
        let call = hang(&store);
        store.release().unwrap();
        call.join().unwrap().unwrap_err();
    }
}
