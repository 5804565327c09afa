//! A plugin that the kit starts and may kill, and the chances of when.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::client::{Endpoint, Plugin};

/// How long a plugin may take until it answers on its socket.
pub(super) const STARTING: Duration = Duration::from_secs(60);

/// The command and the process that it became. It is in a process group of its own, which ends with this value.
#[derive(Debug)]
pub(super) struct Started {
    command: String,
    log: PathBuf,
    endpoint: Endpoint,
    child: Mutex<Option<Child>>,
}

impl Started {
    /// Starts the command by the shell. What the plugin prints goes to the file `log`.
    pub(super) fn new(command: &str, endpoint: &Endpoint, log: PathBuf) -> io::Result<Self> {
        let started = Self { command: command.to_owned(), log, endpoint: endpoint.clone(), child: Mutex::default() };
        started.start()?;
        Ok(started)
    }

    fn start(&self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("/bin/sh");
        // Plugins want an absolute path.
        let endpoint = format!("unix://{}", std::path::absolute(self.endpoint.path())?.display());
        command.args(["-c", &self.command]).env("CSI_ENDPOINT", endpoint).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    /// Sends SIGKILL to all of it, and waits for its end.
    pub(super) fn kill(&self) -> io::Result<()> {
        let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // A group that has ended by itself is what is wanted.
            let _ended = kill_process_group(group, Signal::KILL);
        }
        child.wait()?;
        // Where the shell has started the plugin and not become it, that is somebody else's to wait for. Before it is gone the
        // next one would find its files taken.
        let until = Instant::now() + STARTING / 6;
        while group.is_some_and(|group| test_kill_process_group(group).is_ok()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Starts it again, and waits for its socket.
    pub(super) async fn restart(&self) -> crate::client::Result<Plugin> {
        self.start().map_err(|error| crate::client::Error::local("cannot start the plugin of", &self.log, error))?;
        self.connect().await
    }

    /// Waits until it answers, and is ready. A socket of an earlier process refuses until then.
    pub(super) async fn connect(&self) -> crate::client::Result<Plugin> {
        let start = Instant::now();
        loop {
            if self.has_ended() {
                return Err(crate::client::Error::local("the plugin ended at once, see", &self.log, self.last_words()));
            }
            // In short tries, so that a plugin that has ended is not waited for.
            match Plugin::connect(&self.endpoint, Duration::from_millis(100)).await {
                Ok(plugin) if plugin.probe().await.unwrap_or(false) => return Ok(plugin),
                Err(error) if start.elapsed() > STARTING => return Err(error),
                Ok(plugin) if start.elapsed() > STARTING => return Ok(plugin),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Whether it has ended without being killed.
    pub(super) fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Whether it has ended by itself, or does so shortly: its socket is closed before the process is gone.
    pub(super) async fn ends(&self, plugin: &Plugin) -> bool {
        let start = Instant::now();
        while !self.has_ended() {
            let gone = plugin.probe().await.err().and_then(|error| error.code());
            let broken = matches!(gone, Some(tonic::Code::Unavailable | tonic::Code::Unknown));
            if !broken || start.elapsed() > STARTING / 6 {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// The end of what the plugin has printed.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ended = self.kill();
    }
}

/// Numbers that come again with the same seed.
#[derive(Debug)]
pub(super) struct Chance(Mutex<u64>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        // SplitMix64: every seed gives a good sequence.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
