//! Questions to file systems, which the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use linux_raw_sys::btrfs::btrfs_ioctl_fs_info_args;
use linux_raw_sys::ioctl::BTRFS_IOC_FS_INFO;
use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// The id by which the kernel shows a btrfs in `/sys/fs/btrfs`.
pub(super) fn btrfs_id(fs: impl AsFd) -> Result<[u8; 16]> {
    // SAFETY: BTRFS_IOC_FS_INFO writes one btrfs_ioctl_fs_info_args, of numbers alone.
    Ok(unsafe { ioctl(fs, Getter::<BTRFS_IOC_FS_INFO, btrfs_ioctl_fs_info_args>::new()) }?.fsid)
}

/// `struct xfs_fsop_geom` (xfs_fs.h), version 5: what is asked for, at its place among the rest.
#[repr(C)]
pub(super) struct Geometry {
    before: [u32; 3],
    /// How many allocation groups it has.
    pub(super) agcount: u32,
    between: [u64; 12],
    /// What of the whole is damaged.
    pub(super) sick: u32,
    checked: u32,
    after: [u64; 17],
}

/// `struct xfs_ag_geometry` (xfs_fs.h).
#[repr(C)]
#[derive(Default)]
pub(super) struct Group {
    ag_number: u32,
    before: [u32; 4],
    /// What of the group is damaged.
    pub(super) ag_sick: u32,
    after: [u32; 2],
    reserved: [u64; 12],
}

const XFS_IOC_FSGEOMETRY: Opcode = opcode::read::<Geometry>(b'X', 126);
const XFS_IOC_AG_GEOMETRY: Opcode = opcode::read_write::<Group>(b'X', 61);

/// What an XFS says of itself as a whole.
pub(super) fn xfs_geometry(fs: impl AsFd) -> Result<Geometry> {
    // SAFETY: XFS_IOC_FSGEOMETRY writes one xfs_fsop_geom, of numbers alone, whose size is in its number.
    unsafe { ioctl(fs, Getter::<XFS_IOC_FSGEOMETRY, Geometry>::new()) }
}

/// What an XFS says of one of its allocation groups.
pub(super) fn xfs_group(fs: impl AsFd, number: u32) -> Result<Group> {
    let mut group = Group { ag_number: number, ..Group::default() };
    // SAFETY: XFS_IOC_AG_GEOMETRY reads and writes one xfs_ag_geometry, of numbers alone, whose size is in its number.
    unsafe { ioctl(fs, Updater::<XFS_IOC_AG_GEOMETRY, _>::new(&mut group)) }?;
    Ok(group)
}

const _: () = assert!(size_of::<Geometry>() == 256 && size_of::<Group>() == 128);
const _: () = assert!(std::mem::offset_of!(Geometry, sick) == 112 && std::mem::offset_of!(Group, ag_sick) == 20);
