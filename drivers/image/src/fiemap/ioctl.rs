//! The ioctl FS_IOC_FIEMAP, which the compiler cannot check.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::AsFd;

use linux_raw_sys::ioctl::{FIEMAP_FLAG_SYNC, FS_IOC_FIEMAP};
use rustix::io::Result;
use rustix::ioctl::{Opcode, Updater, ioctl};

/// How many extents are asked for at once: 28 KiB of them.
const COUNT: usize = 512;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// Where it is in the file, in bytes.
    pub(super) logical: u64,
    /// Where it is in the file system, in bytes.
    pub(super) physical: u64,
    /// In bytes.
    pub(super) length: u64,
    reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_*`.
    pub(super) flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with room for extents behind it.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; COUNT],
}

/// The first extents of the file that are, or partly are, in `range`, in their order; none where there are none. What is
/// in memory alone is written out before.
pub(super) fn extents(file: impl AsFd, range: &Range<u64>) -> Result<Vec<Extent>> {
    let mut request = Box::new(Request {
        start: range.start,
        length: range.end - range.start,
        flags: FIEMAP_FLAG_SYNC,
        mapped_extents: 0,
        extent_count: COUNT as u32,
        reserved: 0,
        extents: [Extent::default(); COUNT],
    });
    // SAFETY: FS_IOC_FIEMAP reads and writes a fiemap, and behind it at most as many extents as that says.
    unsafe { ioctl(file, Updater::<{ FS_IOC_FIEMAP as Opcode }, Request>::new(&mut *request)) }?;
    Ok(request.extents[..COUNT.min(request.mapped_extents as usize)].to_vec())
}
