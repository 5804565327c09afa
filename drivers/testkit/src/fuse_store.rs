//! A file system whose server is dead: it takes every request and answers none.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// FUSE_INIT: the one request that is answered.
const INIT: u32 = 26;
/// FUSE_STATFS.
const STATFS: u32 = 17;
/// Length of `struct fuse_in_header`; its first two fields are the length and the opcode, then comes the unique number.
const IN_HEADER: usize = 40;
/// `struct fuse_out_header` and `struct fuse_init_out`.
const INIT_ANSWER: usize = 16 + 64;
/// What the kernel wants a server to have room for at least is 8 KiB; this is what `max_write` below asks.
const BUFFER: usize = 64 << 10;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted FUSE file system that is dead as a network file system is whose server has gone: `statfs`, `stat` and
/// `readdir` in it hang, unkillable, until it is [released](Self::release) or dropped. What never asks the server
/// (`open` with `O_PATH`, binding it elsewhere, `statx` with `AT_STATX_DONT_SYNC`) does not hang.
pub struct DeadFuse {
    target: PathBuf,
    mounted: bool,
    swallowed: Arc<Swallowed>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Swallowed {
    statfs: Mutex<usize>,
    changed: Condvar,
}

impl DeadFuse {
    /// Mounts it on `target`, a directory. Needs root and `/dev/fuse`.
    ///
    /// # Errors
    /// Where the kernel has no FUSE or refuses the mount.
    pub fn mount(target: &Path) -> io::Result<Self> {
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("dunnage-dead", target, "fuse", flags, options.as_c_str())?;
        let swallowed = Arc::new(Swallowed::default());
        let mut dead = Self { target: target.into(), mounted: true, swallowed: Arc::clone(&swallowed), server: None };
        let device = File::from(device);
        dead.server = Some(std::thread::Builder::new().name("dead-fuse".into()).spawn(move || {
            // An error says that the file system is unmounted.
            let _ = serve(&device, &swallowed);
        })?);
        Ok(dead)
    }

    /// Waits until `count` calls of `statfs` have been taken, each of which hangs from then on.
    ///
    /// # Panics
    /// Where they do not come within a minute.
    pub fn wait_for_statfs(&self, count: usize) {
        let taken = self.swallowed.statfs.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.swallowed.changed.wait_timeout_while(taken, PATIENCE, |taken| *taken < count);
        let (taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(*taken >= count, "{} calls of statfs came to {}, not {count}", *taken, self.target.display());
    }

    /// Unmounts it by force: every call that hangs ends with an error.
    ///
    /// # Errors
    /// Where it cannot be unmounted.
    pub fn release(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        if self.mounted {
            rustix::mount::unmount(&self.target, UnmountFlags::FORCE | UnmountFlags::DETACH)?;
            self.mounted = false;
        }
        let server = self.server.take().map_or(Ok(()), JoinHandle::join);
        server.map_err(|_| io::Error::other("the dead server panicked"))
    }
}

impl Drop for DeadFuse {
    fn drop(&mut self) {
        // A test that failed may have unmounted it already.
        let _ = self.end();
    }
}

fn serve(mut device: &File, swallowed: &Swallowed) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER + 4096];
    loop {
        let length = match device.read(&mut buffer) {
            // The request was taken back before it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let request = &buffer[..length];
        match word(request, 4) {
            Some(INIT) => device.write_all(&init_answer(request))?,
            Some(STATFS) => {
                *swallowed.statfs.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                swallowed.changed.notify_all();
            }
            _ => {}
        }
    }
}

/// The answer to FUSE_INIT: the kernel's own version of the protocol, and no features.
fn init_answer(request: &[u8]) -> [u8; INIT_ANSWER] {
    let mut answer = [0; INIT_ANSWER];
    let mut put = |at: usize, bytes: &[u8]| answer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(INIT_ANSWER as u32).to_ne_bytes());
    put(8, request.get(8..16).unwrap_or_default());
    put(16, &word(request, IN_HEADER).unwrap_or_default().to_ne_bytes());
    put(20, &word(request, IN_HEADER + 4).unwrap_or_default().to_ne_bytes());
    put(36, &(BUFFER as u32).to_ne_bytes());
    answer
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn statfs_hangs_until_it_is_released() {
        if !crate::needs_root("statfs_hangs_until_it_is_released") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let dead = DeadFuse::mount(folder.path()).unwrap();
        let path = folder.path().to_owned();
        let call = thread::spawn(move || rustix::fs::statfs(&path).map(drop));
        dead.wait_for_statfs(1);
        assert!(!call.is_finished());
        dead.release().unwrap();
        call.join().unwrap().unwrap_err();
    }
}
