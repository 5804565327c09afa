//! The child that thaws a file system when its parent does not.
//!
//! It is this program again, with a command of its own that is not shown in the help. It opens the tops of the file
//! systems through its parent's descriptors, locks the file that says what is frozen, and says that it is ready. Then it
//! waits for its parent: a byte tells it that it is not needed; an end of file, or no word in time, that it is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};

use crate::mount::sys;

const DISMISSED: u8 = b'k';
/// The exit status of a guard that had to thaw.
const THAWED: i32 = 3;
const READY: &str = "ready";

/// How guards are started: this program with the command of [`watch`].
#[derive(Debug, Clone)]
pub(crate) struct Guards {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Guards {
    /// The hidden command of this program.
    pub(crate) const COMMAND: &'static str = "guard-frozen";

    /// Guards that are this program.
    pub(crate) fn own() -> Self {
        Self { program: "/proc/self/exe".into(), arguments: vec![Self::COMMAND.into()] }
    }

    /// Starts a guard of these file systems, and waits until it is ready.
    pub(super) fn start(&self, intent: &Path, tops: &[&OwnedFd], within: Duration) -> io::Result<Guard> {
        let own = std::process::id();
        let tops = tops.iter().map(|top| format!("/proc/{own}/fd/{}", top.as_raw_fd()));
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(within.as_millis().to_string())
            .arg(intent)
            .args(tops)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        let guard = Guard { child };
        said.transpose()?;
        if line.trim_end() == READY { Ok(guard) } else { Err(io::Error::other("it did not come up")) }
    }
}

/// A guard that waits. Dropped, it thaws what it guards.
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    /// Tells the guard that it is not needed; answers whether it was not, until then.
    pub(super) fn dismiss(mut self) -> io::Result<bool> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // One that has thawed already is gone: its status says so.
            let _ = stdin.write_all(&[DISMISSED]);
        }
        Ok(self.child.wait()?.code() != Some(THAWED))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself at the end of its input.
        let _ = self.child.wait();
    }
}

/// The work of a guard, as the process that it is: its exit status.
///
/// # Errors
/// Where it cannot guard: its parent then freezes nothing.
pub(crate) fn watch(within: Duration, intent: &Path, tops: &[PathBuf]) -> io::Result<u8> {
    let open = |path: &PathBuf| File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let tops: Vec<File> = tops.iter().map(open).collect::<io::Result<_>>()?;
    let intent = File::open(intent)?;
    flock(&intent, FlockOperation::NonBlockingLockExclusive)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    drop(stdout);
    let until = Instant::now() + within;
    if is_dismissed(until)? {
        return Ok(0);
    }
    for top in &tops {
        match sys::thaw(top) {
            // It was not frozen yet, or not any more.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => tracing::error!(%error, "cannot thaw"),
            _ => {}
        }
    }
    Ok(THAWED as u8)
}

fn is_dismissed(until: Instant) -> io::Result<bool> {
    let mut stdin = io::stdin().lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut input = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut input, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut word = [0];
        return Ok(stdin.read(&mut word)? == 1 && word[0] == DISMISSED);
    }
}
