//! What a program says, taken in while it runs, so that a full pipe never stops it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How much of each output is kept unless more is asked for.
pub(super) const LIMIT: usize = 1 << 20;

/// The standard output and the standard error of a program.
pub(super) struct Words(pub(super) [Pipe; 2]);

/// One output.
#[derive(Default)]
pub(super) struct Pipe {
    /// `None` once there is nothing more to come.
    file: Option<File>,
    /// What came.
    pub(super) bytes: Vec<u8>,
    /// How much of it is kept. What a program writes beyond it is read all the same: a closed pipe would end it.
    limit: usize,
}

impl Words {
    /// Those of a child that was given pipes for them.
    pub(super) fn of(child: &mut Child, limit: usize) -> Self {
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        Self(pipes.map(|pipe| Pipe { file: pipe.map(File::from), bytes: Vec::new(), limit }))
    }

    /// Waits up to `limit` for words or for `end`, and takes the words in. Says whether `end` has come; without one,
    /// whether there were words.
    pub(super) fn wait(&mut self, end: Option<BorrowedFd<'_>>, limit: Duration) -> io::Result<bool> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let open: Vec<&mut Pipe> = self.0.iter_mut().filter(|pipe| pipe.file.is_some()).collect();
        let files = open.iter().filter_map(|pipe| pipe.file.as_ref()).map(|file| PollFd::new(file, PollFlags::IN));
        let mut watched: Vec<_> = files.chain(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN))).collect();
        match poll(&mut watched, Some(&limit)) {
            Err(Errno::INTR) => return Ok(false),
            polled => polled?,
        };
        let ready: Vec<bool> = watched.iter().map(|watched| !watched.revents().is_empty()).collect();
        let spoken = ready.iter().take(open.len()).any(|ready| *ready);
        let ended = ready.get(open.len()).copied();
        for (pipe, _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            pipe.take_in();
        }
        Ok(ended.unwrap_or(spoken))
    }

    /// Takes in what is there already, at the latest until `until`: there may always be more.
    pub(super) fn take_rest(&mut self, until: Instant) -> io::Result<()> {
        while Instant::now() < until && self.wait(None, Duration::ZERO)? {}
        Ok(())
    }
}

impl Pipe {
    /// Reads what is there. What was read before an error is still worth having; the status tells the rest.
    fn take_in(&mut self) {
        let mut some = [0; 4096];
        match self.file.as_mut().map(|file| file.read(&mut some)) {
            Some(Ok(length @ 1..)) => {
                let kept = length.min(self.limit - self.bytes.len());
                self.bytes.extend_from_slice(&some[..kept]);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.file = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_never_runs_dry_is_not_read_for_ever() {
        let (send, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let endless = Pipe { file: Some(File::open("/dev/zero").unwrap()), limit: LIMIT, ..Pipe::default() };
            let mut words = Words([endless, Pipe::default()]);
            words.take_rest(Instant::now() + Duration::from_millis(20)).unwrap();
            send.send(words.0[0].bytes.len()).unwrap();
        });
        assert!(answer.recv_timeout(Duration::from_secs(60)).expect("it is read for ever") > 0);
    }
}
