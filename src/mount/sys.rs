//! The system calls that no crate wraps: each a function of a few lines, and the only `unsafe` of the engine.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use linux_raw_sys::general::mount_attr;
use linux_raw_sys::ioctl::{BLKFLSBUF, BLKROSET, BTRFS_IOC_RESIZE, EXT4_IOC_RESIZE_FS, FIFREEZE, FITHAW};
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, ioctl, opcode};

/// Changes the attributes and the propagation of one mount, attached or not, in one step (mount_setattr(2)).
pub(super) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, clear: u64, propagation: u64) -> io::Result<()> {
    let attributes = mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    // SAFETY: the descriptor, the empty C string and the structure outlive the call, which only reads them; the size
    // is that of the structure.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a block device read-only for everybody, or writable again.
pub(super) fn set_device_read_only(device: impl AsFd, read_only: bool) -> io::Result<()> {
    const OPCODE: Opcode = BLKROSET as Opcode;
    // SAFETY: BLKROSET reads one int through its argument.
    unsafe { ioctl(device, Setter::<OPCODE, libc::c_int>::new(read_only.into()))? };
    Ok(())
}

/// Has the kernel write out and forget what it holds of a block device.
pub(super) fn forget_cached(device: impl AsFd) -> io::Result<()> {
    const OPCODE: Opcode = BLKFLSBUF as Opcode;
    // SAFETY: BLKFLSBUF ignores its argument.
    unsafe { ioctl(device, IntegerSetter::<OPCODE>::new_usize(0))? };
    Ok(())
}

/// Freezes the file system of an open directory: all of it is written out, and whoever writes waits.
pub(super) fn freeze(top: impl AsFd) -> io::Result<()> {
    const OPCODE: Opcode = FIFREEZE as Opcode;
    // SAFETY: FIFREEZE ignores its argument.
    unsafe { ioctl(top, IntegerSetter::<OPCODE>::new_usize(0))? };
    Ok(())
}

/// Thaws it: EINVAL where it is not frozen.
pub(super) fn thaw(top: impl AsFd) -> io::Result<()> {
    const OPCODE: Opcode = FITHAW as Opcode;
    // SAFETY: FITHAW ignores its argument.
    unsafe { ioctl(top, IntegerSetter::<OPCODE>::new_usize(0))? };
    Ok(())
}

/// Grows a mounted ext4 to `blocks` of its own block size.
pub(super) fn ext4_resize(root: impl AsFd, blocks: u64) -> io::Result<()> {
    const OPCODE: Opcode = EXT4_IOC_RESIZE_FS as Opcode;
    // SAFETY: EXT4_IOC_RESIZE_FS reads one 64-bit number through its argument.
    unsafe { ioctl(root, Setter::<OPCODE, u64>::new(blocks))? };
    Ok(())
}

/// The first form of the kernel's `struct xfs_fsop_geom`, which every kernel answers.
#[repr(C)]
struct XfsGeometry {
    block_size: u32,
    before_inode_limit: [u32; 6],
    inode_limit_percent: u32,
    data_blocks: u64,
    rest: [u64; 9],
}

/// The kernel's `struct xfs_growfs_data`.
#[repr(C)]
struct XfsGrowData {
    blocks: u64,
    inode_limit_percent: u32,
    padding: u32,
}

/// Grows a mounted XFS to `bytes`, rounded down to its blocks; does nothing where it is as large already.
pub(super) fn xfs_grow(root: impl AsFd, bytes: u64) -> io::Result<()> {
    const GEOMETRY: Opcode = opcode::read::<XfsGeometry>(b'X', 100);
    const GROW_DATA: Opcode = opcode::write::<XfsGrowData>(b'X', 110);
    // SAFETY: XFS_IOC_FSGEOMETRY_V1 fills a structure of this size and layout.
    let geometry = unsafe { ioctl(root.as_fd(), Getter::<GEOMETRY, XfsGeometry>::new())? };
    let blocks = bytes / u64::from(geometry.block_size.max(1));
    if blocks <= geometry.data_blocks {
        return Ok(());
    }
    let data = XfsGrowData { blocks, inode_limit_percent: geometry.inode_limit_percent, padding: 0 };
    // SAFETY: XFS_IOC_FSGROWFSDATA reads a structure of this size and layout.
    unsafe { ioctl(root.as_fd(), Setter::<GROW_DATA, XfsGrowData>::new(data))? };
    Ok(())
}

/// The kernel's `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct BtrfsArguments {
    fd: i64,
    name: [u8; 4088],
}

/// Grows a mounted btrfs of one device to the size of that device.
pub(super) fn btrfs_grow(root: impl AsFd) -> io::Result<()> {
    const OPCODE: Opcode = BTRFS_IOC_RESIZE as Opcode;
    let mut arguments = BtrfsArguments { fd: 0, name: [0; 4088] };
    arguments.name[..3].copy_from_slice(b"max");
    // SAFETY: BTRFS_IOC_RESIZE reads a structure of this size and layout, whose name ends with a NUL.
    unsafe { ioctl(root, Setter::<OPCODE, BtrfsArguments>::new(arguments))? };
    Ok(())
}
