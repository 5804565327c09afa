//! The one way to run another program.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::{Error, Result};
use words::Words;

mod words;

/// How long what a program wrote last may take to be read.
const GRACE: Duration = Duration::from_secs(1);

/// A program that a driver or the mount engine runs. Each is a constant, looked for at start by `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tool {
    /// The program's file name, looked for in the host's `PATH`.
    pub program: &'static str,
    /// The Debian package that has it: what an admin installs.
    pub package: &'static str,
}

impl Tool {
    /// Where the program is, or `None` where no folder of `PATH` has it as an executable file.
    pub fn find(&self) -> Option<std::path::PathBuf> {
        search_path()
            .split(':')
            .map(|folder| std::path::Path::new(folder).join(self.program))
            .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
    }

    /// The start of a command line of this program.
    pub fn command(&self) -> Command {
        Command {
            tool: *self,
            arguments: Vec::new(),
            timeout: Duration::from_secs(120),
            input: Input::Empty,
            keep: words::LIMIT,
        }
    }
}

/// `PATH`, with the system folders that an ordinary user's shell leaves out.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// A command line: a tool, its arguments as a list (there is no shell), and how long it may take.
#[derive(Clone)]
pub struct Command {
    tool: Tool,
    arguments: Vec<OsString>,
    timeout: Duration,
    input: Input,
    keep: usize,
}

/// What a program finds at its standard input.
#[derive(Clone)]
enum Input {
    Empty,
    Bytes(Vec<u8>),
    Held(Arc<OwnedFd>),
}

/// Never shows what is written to the standard input: secrets go there.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("tool", &self.tool.program).field("arguments", &self.arguments).finish()
    }
}

impl Command {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets how long the program may run (2 minutes unless said) before it is killed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many bytes of each output are kept (1 MiB unless said); the rest is read and dropped.
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Self {
        self.keep = bytes;
        self
    }

    /// Gives the program its standard input (empty unless said): the only way in for a secret.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(input.into());
        self
    }

    /// Has the program hold an open file for as long as it runs, in the place of an [`input`](Self::input): a program
    /// goes on where the host is killed, and a lock that was taken on the file (flock(2)) tells the next host so. Not for
    /// a program that reads its standard input.
    #[must_use]
    pub fn holding(mut self, file: impl Into<OwnedFd>) -> Self {
        self.input = Input::Held(Arc::new(file.into()));
        self
    }

    /// The tool that is run.
    pub fn tool(&self) -> Tool {
        self.tool
    }

    /// The arguments after the program's name.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }
}

/// What a program that ended left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// What a fake answers in a test.
    pub fn new(status: ExitStatus, stdout: impl Into<String>, stderr: impl Into<String>) -> Self {
        Self { status, stdout: stdout.into(), stderr: stderr.into() }
    }

    /// The output, or an [`ErrorKind::Internal`](crate::ErrorKind::Internal) error with what the program said.
    pub fn success(self, command: &Command) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let said = if self.stderr.trim().is_empty() { self.stdout.trim() } else { self.stderr.trim() };
        Err(Error::internal(format!("{} failed ({}): {said}", command.tool.program, self.status))
            .with("arguments", format!("{:?}", command.arguments)))
    }
}

/// Runs programs. [`System`] runs real ones; a test may put a fake in its place that fails on demand.
pub trait Commands: Send + Sync {
    /// Runs the program to its end and answers what it left, whatever its status.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where the program is not installed;
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where it could not be started, or did not end in time and
    /// was killed with all its children.
    fn run(&self, command: &Command) -> Result<Output>;
}

/// Runs real programs: with an environment of `PATH` and `LC_ALL=C` alone, in a process group of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Commands for System {
    fn run(&self, command: &Command) -> Result<Output> {
        let program = command.tool.find().ok_or_else(|| {
            Error::precondition(format!(
                "{} is not installed on this node: install the package {}",
                command.tool.program, command.tool.package
            ))
        })?;
        let failed = |what: &str, error| Error::io(format!("cannot {what} {}", command.tool.program), error);
        let mut process = Process::new(program);
        process
            .args(&command.arguments)
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(command.input.to_stdio().map_err(|error| failed("start", error))?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Nothing is set here that has the library fork: that copies the tables of this process, and has its threads copy
        // the pages they write to meanwhile.
        let mut child = process.spawn().map_err(|error| failed("start", error))?;
        let feeder = feed(&mut child, &command.input);
        let mut words = Words::of(&mut child, command.keep);
        let status = attend(&mut child, &mut words, Instant::now() + command.timeout)
            .map_err(|error| failed("wait for", error))?
            .ok_or_else(|| {
                Error::internal(format!(
                    "{} did not end within {} s and was killed",
                    command.tool.program,
                    command.timeout.as_secs()
                ))
            })?;
        drop(feeder);
        let [stdout, stderr] = words.0.map(|pipe| String::from_utf8_lossy(&pipe.bytes).into_owned());
        Ok(Output { status, stdout, stderr })
    }
}

impl Input {
    fn to_stdio(&self) -> std::io::Result<Stdio> {
        Ok(match self {
            Self::Empty => Stdio::null(),
            Self::Bytes(_) => Stdio::piped(),
            Self::Held(file) => file.try_clone()?.into(),
        })
    }
}

fn feed(child: &mut Child, input: &Input) -> Option<std::thread::JoinHandle<()>> {
    let (Some(mut stdin), Input::Bytes(input)) = (child.stdin.take(), input.clone()) else { return None };
    Some(std::thread::spawn(move || {
        // A program that closes its input early says why by its status.
        let _ = std::io::Write::write_all(&mut stdin, &input);
    }))
}

/// Takes in what the child writes until it ends; kills its process group at `until` and answers `None`.
fn attend(child: &mut Child, words: &mut Words, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    let watched = watch(child, words, until);
    let status = conclude(child, watched)?;
    if status.is_some() {
        // What it wrote last. Its own children may have the pipes open still, and write for ever: nobody waits for those.
        words.take_rest(Instant::now() + GRACE)?;
    }
    Ok(status)
}

/// Takes in what the child writes, and says whether it ended before `until`. It is not reaped.
fn watch(child: &Child, words: &mut Words, until: Instant) -> std::io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if words.wait(Some(pidfd.as_fd()), left)? {
            return Ok(true);
        }
    }
}

/// Reaps the child. One that did not end, or that could not be watched (there may be no descriptor for it), is killed
/// with its process group: it must not go on beside what is run in its place.
fn conclude(child: &mut Child, watched: std::io::Result<bool>) -> std::io::Result<Option<ExitStatus>> {
    let ended = matches!(watched, Ok(true));
    if !ended {
        kill_process_group(Pid::from_child(child), Signal::KILL)?;
    }
    let status = child.wait()?;
    watched.map(|ended| ended.then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool { program: "sh", package: "dash" };

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let command = SH.command().args(["-c", "sleep 1000 & sleep 1000"]).timeout(Duration::from_millis(50));
        let error = System.run(&command).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn a_program_that_cannot_be_watched_does_not_run_on() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = Process::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let no_descriptor = std::io::Error::from_raw_os_error(libc::EMFILE);
        let error = conclude(&mut child, Err(no_descriptor)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        let status = child.try_wait().unwrap().expect("it is reaped");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_program_that_says_much_comes_to_its_own_end() {
        let command = SH.command().args(["-c", "head -c 4000000 /dev/zero && echo the end >&2"]);
        let output = System.run(&command).unwrap().success(&command).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.as_str()), (1 << 20, "the end\n"));
        assert_eq!(System.run(&command.keeping(3 << 20)).unwrap().stdout.len(), 3 << 20);
    }

    #[test]
    fn the_environment_is_only_what_is_named() {
        let output = System.run(&SH.command().args(["-c", "env | cut -d= -f1 | sort"])).unwrap();
        assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["LC_ALL", "PATH", "PWD"]);
    }

    #[test]
    fn a_lock_is_held_for_as_long_as_the_program_runs_and_no_longer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = || {
            let opened = std::fs::File::open(file.path()).unwrap();
            opened.try_lock().map(|()| opened)
        };
        let begun = file.path().with_extension("begun");
        let command = SH
            .command()
            .args(["-c", "echo > \"$0\"; while [ -e \"$0\" ]; do sleep 0.01; done"])
            .arg(&begun)
            .holding(lock().unwrap());
        let running = std::thread::spawn(move || System.run(&command).unwrap().success(&command).unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while !begun.exists() {
            assert!(Instant::now() < until, "it does not start");
        }
        assert!(matches!(lock(), Err(std::fs::TryLockError::WouldBlock)));
        std::fs::remove_file(&begun).unwrap();
        running.join().unwrap();
        // Another test may be starting a program at this moment, which has every file of this process until it runs.
        while lock().is_err() {
            assert!(Instant::now() < until, "it stays locked");
        }
    }

    #[test]
    fn a_failing_program_is_quoted_with_its_words() {
        let command = SH.command().args(["-c", "echo broken >&2; exit 3"]);
        let error = System.run(&command).unwrap().success(&command).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }

    #[test]
    fn more_than_a_pipe_holds_is_taken_in_from_both_outputs() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo out-$i; echo err-$i >&2; i=$((i+1)); done; echo end";
        let output = System.run(&SH.command().args(["-c", script])).unwrap();
        assert_eq!(output.stdout.lines().count(), 20_001);
        assert!(output.stdout.ends_with("end\n"), "what is written last is not lost");
        assert_eq!(output.stderr.lines().count(), 20_000);
    }

    #[test]
    fn a_child_that_the_program_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let output = System.run(&SH.command().args(["-c", "sleep 60 & echo $!"])).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30));
        let left = output.stdout.trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool { program: "no-such-program", package: "no-such-package" };
        let error = System.run(&tool.command()).unwrap_err();
        assert!(error.to_string().contains("install the package no-such-package"), "{error}");
    }

    #[test]
    fn the_input_is_in_no_debug_output() {
        assert!(!format!("{:?}", SH.command().input("canary")).contains("canary"));
    }
}
