//! What a mount shows, by which it is known again.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use dunnage_driver_api::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::namespace;

/// Looks at a file without asking a server that may never answer, and never through a link.
pub(super) const LOOK: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT).union(AtFlags::STATX_DONT_SYNC);

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

    /// The number of the file system's device.
    pub(super) fn device(self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// The number of the inode.
    pub(super) fn inode(self) -> u64 {
        self.inode
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

/// The type of the file system that is mounted at a name; `None` where no mount begins there.
pub(super) fn fs_type_of(folder: BorrowedFd<'_>, name: &Path) -> Result<Option<String>> {
    let line = line_of_mount(folder, name)?;
    let fs_type = line.as_deref().and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    Ok(fs_type.map(str::to_owned))
}

/// Whether a file system of this type is served by a program of this machine.
pub(super) fn is_fuse(fs_type: &str) -> bool {
    fs_type == "fuse" || fs_type.starts_with("fuse.")
}

/// Whether a file system of this type is served by a program or over a network.
pub(super) fn is_served_elsewhere(fs_type: &str) -> bool {
    is_fuse(fs_type) || matches!(fs_type, "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs")
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
