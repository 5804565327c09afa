//! What the steps share: where things are, and the environment of what they start.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Command;

/// One run of the test command.
pub(crate) struct Session {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Cargo's build folder.
    pub(crate) target: PathBuf,
    /// Programs built for the tests; kept between runs.
    pub(crate) tools: PathBuf,
    /// One file of output for each step.
    pub(crate) logs: PathBuf,
    /// `PATH`, and around it what was installed or is never in it.
    path: OsString,
}

impl Session {
    pub(crate) fn start() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        let (tools, logs) = (target.join("tools"), target.join("test-logs"));
        for folder in [&tools, &logs] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut session = Self { root, target, tools, logs, path: env::var_os("PATH").unwrap_or_default() };
        // An ordinary user's PATH has no sbin on Debian; mkfs and fsck are there.
        session.extend_path(&[], &["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))?;
        Ok(session)
    }

    /// A command in the workspace's folder that finds what this session has installed.
    pub(crate) fn command(&self, program: &str) -> Command {
        // Looked up here, since the search for a program to start uses the PATH of this process.
        let found = self.find(program).unwrap_or_else(|| program.into());
        Command::new(found, &self.root).env("PATH", &self.path)
    }

    /// Cargo as this program was started with.
    pub(crate) fn cargo(&self) -> Command {
        self.command(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
    }

    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.logs.join(format!("{step}.log"))
    }

    /// What an earlier run has left would be taken for this one's.
    pub(crate) fn renew_log(&self, step: &str) -> Result<()> {
        let log = self.log(step);
        File::create(&log).map(drop).with_context(|| format!("cannot write {}", log.display()))
    }

    /// Where programs are searched for.
    pub(crate) fn path(&self) -> &OsString {
        &self.path
    }

    /// Finds what is installed in `folder` before anything else.
    pub(crate) fn prepend_path(&mut self, folder: PathBuf) -> Result<()> {
        self.extend_path(&[folder], &[])
    }

    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
    }

    fn extend_path(&mut self, before: &[PathBuf], after: &[PathBuf]) -> Result<()> {
        let old: Vec<_> = env::split_paths(&self.path).collect();
        let after = after.iter().filter(|folder| !old.contains(folder));
        self.path = env::join_paths(before.iter().chain(&old).chain(after)).context("cannot extend PATH")?;
        Ok(())
    }
}
