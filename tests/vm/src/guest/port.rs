//! The way to the guest's agent and back: QEMU's standard input and output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// What the agent's own lines begin with.
const MARK: char = '\u{1e}';

/// What comes from a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The agent takes jobs.
    Ready,
    /// A line that a job wrote.
    Line(String),
    /// A job ended with this status.
    Ended(i32),
}

#[derive(Debug)]
pub(super) struct Port {
    jobs: ChildStdin,
    messages: Receiver<Message>,
}

impl Port {
    pub(super) fn new(qemu: &mut Child) -> Result<Self> {
        let jobs = qemu.stdin.take().context("QEMU has no input")?;
        let output = qemu.stdout.take().context("QEMU has no output")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || receive(output, &sender));
        Ok(Self { jobs, messages })
    }

    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.jobs, "{line}").and_then(|()| self.jobs.flush()).context("cannot write to QEMU")
    }

    /// The next message.
    ///
    /// # Errors
    /// None has come within `limit`, or none can come any more since QEMU has ended.
    pub(super) fn next(&self, limit: Duration) -> Result<Message, RecvTimeoutError> {
        self.messages.recv_timeout(limit)
    }
}

fn receive(output: impl Read, sender: &Sender<Message>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if parse(line.trim_end_matches('\r')).into_iter().any(|message| sender.send(message).is_err()) {
            return;
        }
    }
}

/// A job may have ended in the middle of a line, which the agent's then goes on with.
fn parse(line: &str) -> Vec<Message> {
    let Some((rest, mark)) = line.rsplit_once(MARK) else { return vec![Message::Line(line.into())] };
    let mut messages = Vec::new();
    if !rest.is_empty() {
        messages.push(Message::Line(rest.into()));
    }
    messages.push(match mark.split_once(' ').map(|(word, status)| (word, status.parse())) {
        Some(("ended", Ok(status))) => Message::Ended(status),
        None if mark == "ready" => Message::Ready,
        _ => Message::Line(mark.into()),
    });
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_jobs_and_of_the_agent_are_told_apart() {
        let (sender, messages) = mpsc::channel();
        receive(&b"\x1eready\nrunning 1 test\n\nhalf a line\x1eended 101\n\x1estray\n"[..], &sender);
        let line = |text: &str| Message::Line(text.into());
        let wanted = [Message::Ready, line("running 1 test"), line(""), line("half a line"), Message::Ended(101)];
        assert_eq!(messages.try_iter().collect::<Vec<_>>(), [&wanted[..], &[line("stray")]].concat());
    }
}
