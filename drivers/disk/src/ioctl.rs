//! Two ioctls of block devices: the one file of this driver that the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use linux_raw_sys::ioctl::{BLKDISCARD, BLKRRPART};
use rustix::io::Result;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl};

/// Has a disk forget so many bytes from this place on; what they read then is the disk's choice.
pub(crate) fn discard(device: impl AsFd, start: u64, length: u64) -> Result<()> {
    // SAFETY: BLKDISCARD reads two 64-bit numbers through its argument.
    unsafe { ioctl(device, Setter::<{ BLKDISCARD as Opcode }, [u64; 2]>::new([start, length])) }
}

/// Has the kernel read the partition table of a disk again; `EBUSY` where a partition is in use.
pub(crate) fn read_partitions(device: impl AsFd) -> Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { ioctl(device, NoArg::<{ BLKRRPART as Opcode }>::new()) }
}
