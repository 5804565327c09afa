//! The program, running.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Channel;

use crate::mounts::unmount_beneath;
use crate::{Client, Setup, connect, wait_until};

/// Far above what starting and ending take; only a hang comes near.
const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "host.log";

/// A process of `serve` with its configuration. When it is dropped the process is killed, and its log is printed, which
/// the test harness shows where the test has failed.
#[derive(Debug)]
pub struct Host {
    // Dropped before the setup, whose folder the process uses.
    child: Option<Child>,
    setup: Setup,
    binary: PathBuf,
}

impl Host {
    pub(crate) fn new(setup: Setup, binary: &Path) -> Self {
        Self { child: None, setup, binary: binary.into() }
    }

    /// Marks the roots of all backends.
    ///
    /// # Errors
    /// What the command complains of.
    pub fn init(&self) -> Result<()> {
        let init = self.run(&["init"])?;
        let said = [&init.stdout, &init.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        ensure!(init.status.success(), "init failed: {}", said.concat());
        Ok(())
    }

    /// Runs one of the program's commands to its end, with the configuration of this host.
    ///
    /// # Errors
    /// It could not be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        command.output().with_context(|| format!("cannot start {} {arguments:?}", self.binary.display()))
    }

    /// Starts the program again on the same configuration, killed first where it runs, and waits for every socket.
    ///
    /// # Errors
    /// The process ended, or a socket accepts nobody for a long time.
    pub fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.setup.csi_names().iter().try_for_each(|csi_name| self.wait_for(csi_name))
    }

    /// Starts the program, killed first where it runs, and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        self.kill()?;
        let log = File::options().create(true).append(true).open(self.log_path()).context("cannot open the log")?;
        let mut command = self.command(&["serve"]);
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until a plugin accepts.
    ///
    /// # Errors
    /// The process ended, or the socket accepts nobody for a long time.
    pub fn wait_for(&mut self, csi_name: &str) -> Result<()> {
        let socket = self.setup.socket(csi_name);
        wait_until(&format!("{} to accept", socket.display()), LIMIT, || {
            if let Some(status) = self.ended()? {
                bail!("serve ended ({status}): {}", self.log());
            }
            Ok(UnixStream::connect(&socket).is_ok())
        })
    }

    /// How the process ended, where it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// Waits until the log, of all starts together, has this text.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_until(&format!("{text:?} in the log"), LIMIT, || Ok(self.log().contains(text)))
    }

    /// Sends SIGKILL and waits for the end; nothing where it does not run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill the host")?;
            wait_until("the killed host to end", LIMIT, || Ok(child.try_wait()?.is_some()))?;
        }
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not run, or goes on running for a long time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        kill_process(self.pid()?, Signal::TERM).context("cannot signal the host")?;
        let mut child = self.child.take().context("the host does not run")?;
        let mut ended = None;
        let waited = wait_until("the host to end after SIGTERM", LIMIT, || {
            ended = child.try_wait()?;
            Ok(ended.is_some())
        });
        if waited.is_err() {
            self.child = Some(child);
        }
        waited?;
        ended.context("the host has not ended")
    }

    /// The process, for a test that signals or observes it.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<Pid> {
        let id = self.child.as_ref().context("the host does not run")?.id();
        Pid::from_raw(id.try_into()?).context("the host has no process id")
    }

    /// The socket of a plugin.
    pub fn socket(&self, csi_name: &str) -> PathBuf {
        self.setup.socket(csi_name)
    }

    /// The socket of a plugin as clients are told it: `unix://` and its path.
    pub fn endpoint(&self, csi_name: &str) -> String {
        format!("unix://{}", self.socket(csi_name).display())
    }

    /// A connection to a plugin.
    ///
    /// # Errors
    /// Nobody accepts.
    pub async fn channel(&self, csi_name: &str) -> Result<Channel> {
        connect(&self.socket(csi_name)).await
    }

    /// A client of a plugin.
    ///
    /// # Errors
    /// Nobody accepts.
    pub fn client(&self, csi_name: &str) -> Result<Client> {
        Client::connect(&self.socket(csi_name))
    }

    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// All that the program has logged, over every restart.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.setup.scratch().path().join(LOG)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.setup.config()).stdin(Stdio::null());
        // What the environment of a test says of sockets and nodes is not meant for this process.
        command.env_remove("CSI_ENDPOINT").env_remove("NODE_NAME");
        command.envs(self.setup.environment().iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Host {
    #[allow(clippy::print_stderr, reason = "the harness shows what a failed test printed")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A thread of it that hangs in a dead file system ends only when that is unmounted.
            let _ = child.kill();
            unmount_beneath(self.setup.scratch().path());
        }
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
        eprintln!("log of the host:\n{}", self.log());
    }
}
