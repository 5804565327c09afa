//! What a mount shows, by which it is known again.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dunnage_driver_api::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::namespace;

/// Looks at a file without asking a server that may never answer, and never through a link.
pub(super) const LOOK: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT).union(AtFlags::STATX_DONT_SYNC);

/// How long the server of a mount may take to answer whether it is there.
const ANSWER: Duration = Duration::from_secs(2);

/// What a mount shows at its top, in the kernel's numbers: the same file system and the same file of it.
///
/// The number of the mount itself is not in it: each mount namespace has its own, so that it changes when the container
/// of this process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    major: u32,
    minor: u32,
    inode: u64,
}

impl Root {
    /// What an open file, directory or mount shows.
    pub(super) fn of(file: impl AsFd) -> Result<Self> {
        statx(file.as_fd(), Path::new(""), LOOK | AtFlags::EMPTY_PATH)
            .map(|seen| Self::from(&seen))
            .map_err(|error| Error::io("cannot look at an open mount", error))
    }
}

impl From<&rustix::fs::Statx> for Root {
    fn from(seen: &rustix::fs::Statx) -> Self {
        Self { major: seen.stx_dev_major, minor: seen.stx_dev_minor, inode: seen.stx_ino }
    }
}

/// A mount of a file system that has failed and tells nothing of itself: the kernel still has its device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailedMount {
    major: u32,
    minor: u32,
}

impl FailedMount {
    /// Whether it is a mount of the file system that has this root.
    pub(super) fn is_of(self, root: Root) -> bool {
        (self.major, self.minor) == (root.major, root.minor)
    }
}

/// The mount at a name whose file system does not answer; `None` where no mount begins there.
pub(super) fn failed_mount(folder: BorrowedFd<'_>, name: &Path) -> Result<Option<FailedMount>> {
    let line = line_of_mount(folder, name)?;
    let device = line.as_deref().and_then(|line| line.split(' ').nth(2)?.split_once(':'));
    Ok(device.and_then(|(major, minor)| Some(FailedMount { major: major.parse().ok()?, minor: minor.parse().ok()? })))
}

/// Whether the file system that is mounted at a name is served by a program or over a network.
pub(super) fn is_served_elsewhere(folder: BorrowedFd<'_>, name: &Path) -> Result<bool> {
    let line = line_of_mount(folder, name)?;
    let fs_type = line.as_deref().and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    Ok(fs_type.is_some_and(|fs_type| {
        matches!(fs_type, "fuse" | "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs")
            || fs_type.starts_with("fuse.")
    }))
}

/// Whether the server of the file system that is mounted at a name answers within [`ANSWER`]. The thread that asks ends
/// when the server answers or goes, however late: the caller must not ask about one mount over and over.
pub(super) fn answers(folder: BorrowedFd<'_>, name: &Path) -> Result<bool> {
    let failed = |error: std::io::Error| Error::io(format!("cannot look at the mount {}", name.display()), error);
    let (folder, name) = (folder.try_clone_to_owned().map_err(failed)?, name.to_owned());
    let (answered, answer) = mpsc::channel();
    let ask = move || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The mount is held open no longer than the question takes: it is to be unmounted.
        let alive = rustix::fs::openat(&folder, &name, flags, Mode::empty())
            .and_then(|file| rustix::fs::fstatfs(&file))
            .is_ok();
        // Who asked may have given up.
        let _ = answered.send(alive);
    };
    thread::Builder::new().name("mount-answers".into()).spawn(ask).map_err(failed)?;
    Ok(answer.recv_timeout(ANSWER).unwrap_or(false))
}

/// The line in the table of mounts for the mount at a name; `None` where no mount begins there. The only looks that read
/// that table: a file system that has failed, or hangs, answers nothing else.
fn line_of_mount(folder: BorrowedFd<'_>, name: &Path) -> Result<Option<String>> {
    let failed = |error: std::io::Error| Error::io(format!("cannot look at the mount {}", name.display()), error);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let number = |file: BorrowedFd<'_>| -> std::io::Result<Option<u64>> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        Ok(text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
    };
    let (mount, above) = (number(file.as_fd()).map_err(failed)?, number(folder).map_err(failed)?);
    let Some(mount) = mount.filter(|_| mount != above) else { return Ok(None) };
    Ok(namespace::line_of(&namespace::mounts()?, mount).map(str::to_owned))
}

/// statx(2) for what is wanted here.
pub(super) fn statx(folder: BorrowedFd<'_>, name: &Path, flags: AtFlags) -> rustix::io::Result<rustix::fs::Statx> {
    rustix::fs::statx(folder, name, flags, StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO | StatxFlags::MNT_ID)
}
