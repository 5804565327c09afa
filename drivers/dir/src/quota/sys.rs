//! The system calls of project quotas: quotactl_fd(2) and FS_IOC_FSSETXATTR.
//!
//! The XFS forms of the quota commands work on every file system with quotas.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::{__NR_quotactl_fd, fsxattr};
use linux_raw_sys::ioctl::{FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR};

const PRJQUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = ('X' as u32) << 8 | 3;
const Q_XSETQLIM: u32 = ('X' as u32) << 8 | 4;
const Q_XGETQSTATV: u32 = ('X' as u32) << 8 | 8;

const FS_DQUOT_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
const FS_DQ_BSOFT: u16 = 1 << 2;
const FS_DQ_BHARD: u16 = 1 << 3;
const FS_QSTATV_VERSION1: i8 = 1;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// What block counts are in.
const BASIC_BLOCK: u64 = 512;

/// `struct fs_disk_quota` of linux/dqblk_xfs.h.
#[repr(C)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fieldmask: u16,
    id: u32,
    blk_hardlimit: u64,
    blk_softlimit: u64,
    ino_hardlimit: u64,
    ino_softlimit: u64,
    bcount: u64,
    icount: u64,
    rest: [u64; 7],
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h.
#[repr(C)]
struct QuotaState {
    version: i8,
    pad: u8,
    flags: u16,
    incoredqs: u32,
    files: [u64; 9],
    rest: [u64; 10],
}

const _: () = assert!(size_of::<DiskQuota>() == 112 && size_of::<QuotaState>() == 160);

/// Whether the file system enforces project quotas; ENOSYS and the like where it knows none.
pub(super) fn is_enforced(fs: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut state: QuotaState = unsafe { zeroed() };
    state.version = FS_QSTATV_VERSION1;
    quotactl(fs, Q_XGETQSTATV, 0, &mut state)?;
    Ok(state.flags & FS_QUOTA_PDQ_ENFD != 0)
}

/// What the file system keeps of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Project {
    /// How many bytes it may take at most; 0 is no limit.
    pub(super) limit: u64,
    /// How many bytes it takes.
    pub(super) used: u64,
    /// Whether anything belongs to it.
    pub(super) is_used: bool,
}

pub(super) fn project(fs: BorrowedFd<'_>, id: u32) -> io::Result<Project> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut quota: DiskQuota = unsafe { zeroed() };
    match quotactl(fs, Q_XGETQUOTA, id, &mut quota) {
        // The file system never heard of it.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Project { limit: 0, used: 0, is_used: false }),
        done => done.map(|()| Project {
            limit: quota.blk_hardlimit.saturating_mul(BASIC_BLOCK),
            used: quota.bcount.saturating_mul(BASIC_BLOCK),
            is_used: quota.bcount != 0 || quota.icount != 0,
        }),
    }
}

/// Lets the project take at most `bytes`; 0 is no limit.
pub(super) fn set_limit(fs: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut quota: DiskQuota = unsafe { zeroed() };
    quota.version = FS_DQUOT_VERSION;
    quota.flags = FS_PROJ_QUOTA;
    quota.fieldmask = FS_DQ_BHARD | FS_DQ_BSOFT;
    quota.id = project;
    quota.blk_hardlimit = bytes / BASIC_BLOCK;
    quotactl(fs, Q_XSETQLIM, project, &mut quota)
}

/// Gives a folder a project, which all that is made below inherits.
pub(super) fn set_project(folder: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = attributes(folder)?;
    attributes.fsx_projid = project;
    attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the descriptor is open, and the kernel reads one fsxattr, which lives until it returns.
    done(unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw const attributes) }.into())
}

/// The project that what is made in the folder inherits.
pub(super) fn inherited_project(folder: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let attributes = attributes(folder)?;
    Ok((attributes.fsx_xflags & FS_XFLAG_PROJINHERIT != 0).then_some(attributes.fsx_projid))
}

fn attributes(folder: BorrowedFd<'_>) -> io::Result<fsxattr> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut attributes: fsxattr = unsafe { zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes one fsxattr, which is exclusively ours.
    done(unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) }.into())?;
    Ok(attributes)
}

/// `T` must be the structure that `command` reads or writes.
fn quotactl<T>(fs: BorrowedFd<'_>, command: u32, project: u32, data: &mut T) -> io::Result<()> {
    let command = command << 8 | PRJQUOTA;
    // SAFETY: the descriptor is open; each caller above passes the structure of its command, exclusively borrowed.
    done(unsafe { libc::syscall(__NR_quotactl_fd.into(), fs.as_raw_fd(), command, project, std::ptr::from_mut(data)) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
