//! Starting a program: its output goes to the terminal as it comes, to a log, and line by line to whoever asks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Above what any step needs, also on a busy machine; a program that hangs must not cost the summary.
const LIMIT: Duration = Duration::from_secs(120 * 60);
/// How long output may still come from what an ended program has left behind.
const GRACE: Duration = Duration::from_secs(5);

/// A program to start, without a standard input.
pub(crate) struct Command {
    inner: process::Command,
    shown: String,
}

impl Command {
    pub(crate) fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        let shown = Path::new(program.as_ref()).file_name().unwrap_or(program.as_ref()).to_string_lossy().into_owned();
        let mut inner = process::Command::new(program);
        inner.current_dir(folder).stdin(Stdio::null());
        Self { inner, shown }
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        for argument in arguments {
            self.shown = format!("{} {}", self.shown, argument.as_ref().to_string_lossy());
            self.inner.arg(argument);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.inner.current_dir(folder);
        self
    }

    /// Lets the program ask the terminal for what it needs (a password).
    pub(crate) fn interactive(mut self) -> Self {
        self.inner.stdin(Stdio::inherit());
        self
    }

    /// What it writes to its standard output; an error with all it wrote where it fails.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.inner.output().with_context(|| format!("cannot start {}", self.shown))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed ({}): {text}{complaint}", self.shown, output.status);
        Ok(text)
    }

    /// Runs it with its output on the terminal and appended to `log`; an error where it fails.
    pub(crate) fn run(self, log: &Path) -> Result<()> {
        let shown = self.shown.clone();
        let status = self.watch(log, |_| ())?;
        ensure!(status.success(), "{shown} failed ({status}); see {}", log.display());
        Ok(())
    }

    /// Like [`Command::run`], but hands each line to `see` and leaves the judgement to the caller.
    pub(crate) fn watch(mut self, log: &Path, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
        let cannot = format!("cannot start {}", self.shown);
        // One pipe for both, so that they stay in their order.
        let (reader, writer) = io::pipe()?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.inner.spawn().context(cannot)?;
        let Self { inner, shown } = self;
        drop(inner); // It holds this process's ends of the pipe.
        let mut log = Log::append(log)?;
        log.line(&format!("$ {shown}"))?;
        println!("$ {shown}");
        let lines = lines_of(reader);
        let started = Instant::now();
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => {
                    println!("{line}");
                    log.line(&line)?;
                    see(&line);
                    if ended.is_none() {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match ended {
                Some((status, since)) if since.elapsed() > GRACE => {
                    println!("{shown} has ended, but something it started still runs and holds its output");
                    return Ok(status);
                }
                Some(_) => {}
                None if started.elapsed() > LIMIT => {
                    child.kill()?;
                    child.wait()?;
                    bail!("{shown} ran for longer than {} minutes", LIMIT.as_secs() / 60);
                }
                None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
            }
        }
    }
}

fn lines_of(reader: io::PipeReader) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// A file of output, appended to.
pub(crate) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    pub(crate) fn append(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot open the log {}", path.display()))?;
        Ok(Self { file, path: path.into() })
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        // In one piece: others may append to it too.
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }
}
