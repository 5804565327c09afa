//! The child that thaws a file system when its parent does not.
//!
//! It is this program again, with a command of its own that is not shown in the help. It opens the tops of the file
//! systems through its parent's descriptors, locks the file that says what is frozen, and says that it is ready. Then its
//! parent tells it, a byte each, that the next file system is frozen, and last that the guard is not needed any more. When
//! the time is up it thaws those that are frozen, and from then on each as it is told of it: a freeze may take longer than
//! it was to last. At the end of its input, which is the end of its parent and of all calls that it was in, it thaws those
//! it was told of and the one after, which may have been frozen in that moment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
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
const FROZEN: u8 = b'f';
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
    /// Tells the guard that the next of its file systems is frozen.
    pub(super) fn tell_frozen(&mut self) -> io::Result<()> {
        self.child.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(&[FROZEN]))
    }

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
    let intent = File::options().read(true).write(true).open(intent)?;
    flock(&intent, FlockOperation::NonBlockingLockExclusive)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    drop(stdout);
    let (until, mut frozen, mut late) = (Instant::now() + within, 0, false);
    loop {
        let left = if late { None } else { Some(until.saturating_duration_since(Instant::now())) };
        match next_word(left)? {
            Word::Frozen => {
                if late {
                    tops.get(frozen).into_iter().for_each(thaw);
                }
                frozen += 1;
            }
            Word::TimeIsUp => {
                tops.iter().take(frozen).for_each(thaw);
                late = true;
            }
            Word::Dismissed => return Ok(if late { THAWED as u8 } else { 0 }),
            Word::End => {
                // Those before were thawed when the time was up.
                let done = if late { frozen } else { 0 };
                tops.iter().take(frozen + 1).skip(done).for_each(thaw);
                // What it says is over: nobody thaws on its word what somebody else freezes now.
                intent.set_len(0)?;
                return Ok(THAWED as u8);
            }
        }
    }
}

fn thaw(top: &File) {
    match sys::thaw(top) {
        // It was not frozen yet, or not any more.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => tracing::error!(%error, "cannot thaw"),
        _ => {}
    }
}

/// What the parent says, or does not say.
enum Word {
    Frozen,
    Dismissed,
    TimeIsUp,
    End,
}

/// Waits for the next word of the parent, at most so long.
fn next_word(left: Option<Duration>) -> io::Result<Word> {
    // Past the buffer of the standard input, which poll would not see.
    let stdin = io::stdin();
    let timeout =
        left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut input, timeout.as_ref()))? == 0 {
        return Ok(Word::TimeIsUp);
    }
    let mut word = [0];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&stdin, &mut word))?;
    Ok(match (read, word[0]) {
        (1, FROZEN) => Word::Frozen,
        (1, DISMISSED) => Word::Dismissed,
        _ => Word::End,
    })
}
