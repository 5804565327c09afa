//! File systems that a server on the network has.
//!
//! To mount one is to wait for its server, for ever where that is gone: the kernel ends such a wait only for a process that
//! is killed. So a child makes the file system, in a context that this process has prepared, and is killed when the time is
//! up; nothing is left then. It is this program again, with a command of its own that is not shown in the help.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, MountSource, Mounts, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_set_flag, fsconfig_set_string};

use super::filesystem::{attributes, words};
use super::options::Options;
use super::root::Root;

/// How the children are started that make file systems: this program with the command of [`create`].
#[derive(Debug, Clone)]
pub(crate) struct Creators {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Creators {
    /// The hidden command of this program.
    pub(crate) const COMMAND: &'static str = "create-mounted";

    /// Children that are this program.
    pub(crate) fn own() -> Self {
        Self { program: "/proc/self/exe".into(), arguments: vec![Self::COMMAND.into()] }
    }

    /// Makes the file system that was prepared in `context`; the error number where that fails, `None` where there is no
    /// answer in time.
    fn create(&self, context: BorrowedFd<'_>, within: Duration) -> io::Result<Option<rustix::io::Result<()>>> {
        let until = Instant::now() + within;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(context.try_clone_to_owned()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = answer_of(&mut child, until);
        // One that has answered ends by itself; the others the kernel lets go when they are killed.
        if !matches!(said, Ok(Some(_))) {
            let _ = child.kill();
        }
        child.wait()?;
        said
    }
}

fn answer_of(child: &mut Child, until: Instant) -> io::Result<Option<rustix::io::Result<()>>> {
    let Some(mut stdout) = child.stdout.take() else { return Ok(None) };
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    if rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&timeout)))? == 0 {
        return Ok(None);
    }
    let mut text = String::new();
    stdout.read_to_string(&mut text)?;
    match text.trim().parse() {
        Ok(0) => Ok(Some(Ok(()))),
        Ok(number) => Ok(Some(Err(Errno::from_raw_os_error(number)))),
        Err(_) => Err(io::Error::other("the child that mounts has ended without an answer")),
    }
}

/// The work of such a child, as the process that it is: its standard input is the context.
///
/// # Errors
/// Where it cannot say how it went.
pub(crate) fn create() -> io::Result<()> {
    let number = rustix::mount::fsconfig_create(io::stdin().as_fd()).map_or_else(Errno::raw_os_error, |()| 0);
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{number}")?;
    stdout.flush()
}

/// Mounts for drivers.
#[derive(Debug, Clone)]
pub(crate) struct OfDrivers(pub(crate) Creators);

impl Mounts for OfDrivers {
    fn mount(&self, source: &MountSource, within: Duration) -> Result<OwnedFd> {
        mount(&self.0, source, &Options::default(), false, within)
    }
}

/// Mounts it, attached nowhere yet.
///
/// # Errors
/// InvalidArgument for an option that it may not be told, or does not know; otherwise with the kernel's words and what the
/// admin can do.
pub(super) fn mount(
    creators: &Creators,
    source: &MountSource,
    options: &Options,
    read_only: bool,
    within: Duration,
) -> Result<OwnedFd> {
    if let Some((key, _)) = options.filesystem.iter().find(|(key, _)| !source.allowed.contains(&key.as_str())) {
        return Err(Error::invalid(format!(
            "mount option {key:?} cannot be a single volume's here: use {}, or the options of one mount (ro, nosuid, nodev, \
             noexec, noatime and the like)",
            source.allowed.join(", ")
        )));
    }
    let context = rustix::mount::fsopen(source.fs_type, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let message = format!("cannot mount {}", source.source);
        if errno == Errno::NODEV {
            let remedy = format!("load the kernel module {} on this node", source.fs_type);
            return Error::precondition(format!("{message}: {remedy}")).caused_by(io::Error::from(errno));
        }
        Error::io(message, errno)
    })?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", source.source.as_str())
        .map_err(|errno| refused(source, "source", context, errno))?;
    for (key, value) in source.options.iter().chain(&options.filesystem) {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        }
        .map_err(|errno| refused(source, key, context, errno))?;
    }
    let created = creators
        .create(context, within)
        .map_err(|error| Error::io(format!("cannot run the child that mounts {}", source.source), error))?;
    match created {
        Some(Ok(())) => {}
        Some(Err(errno)) => return Err(failed(source, &words(context), errno)),
        None => {
            return Err(Error::internal(format!(
                "{} is not mounted: its server did not answer within {} s; see whether it runs, and the network between",
                source.source,
                within.as_secs()
            )));
        }
    }
    let mount = rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options, read_only))
        .map_err(|errno| failed(source, &words(context), errno))?;
    match source.inode {
        Some(inode) if Root::of(&mount)?.inode() != inode => Err(Error::internal(format!(
            "what was mounted as {} is not the folder that was found there before: it was replaced meanwhile",
            source.source
        ))),
        _ => Ok(mount),
    }
}

/// An option that the file system does not take: its value is not told.
fn refused(source: &MountSource, key: &str, context: BorrowedFd<'_>, errno: Errno) -> Error {
    let words = words(context);
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    Error::invalid(format!("{} takes no mount option {key:?} like this{said}: correct it", source.source))
        .caused_by(io::Error::from(errno))
}

fn failed(source: &MountSource, words: &str, errno: Errno) -> Error {
    let said = if words.is_empty() { String::new() } else { format!(" ({words})") };
    let message = format!("cannot mount {}{said}", source.source);
    let remedy = match errno {
        Errno::NOENT => "see whether the server has this folder, and exports it",
        Errno::ACCESS | Errno::PERM => "export it to this node, read-write and with no_root_squash",
        Errno::PROTONOSUPPORT => "set a version that the server speaks",
        Errno::INVAL => "correct the mount options",
        _ => return Error::io(message, errno),
    };
    Error::precondition(format!("{message}: {remedy}")).retry(true).caused_by(io::Error::from(errno))
}
