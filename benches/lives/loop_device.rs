//! Attaching a file as a loop device, with the fewest calls.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, loop_config,
};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};

/// GET_FREE and CONFIGURE race between threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The device and its path; it is detached when nothing has it open or mounted.
pub(crate) fn attach(file: &File) -> io::Result<(File, String)> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    loop {
        let path = format!("/dev/loop{}", free(&control)?);
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        match configure(&device, file) {
            // Another process was faster.
            Err(Errno::BUSY) => {}
            configured => return Ok(configured.map(|()| (device, path))?),
        }
    }
}

fn free(control: &File) -> io::Result<i32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and answers a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as libc::Ioctl) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

fn configure(device: impl AsFd, file: &File) -> Result<(), Errno> {
    // SAFETY: every field of loop_config is an integer or an array of them, for which zero is a value.
    let mut config: loop_config = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().cast_unsigned();
    // As the host does: the block size of the file system follows it.
    config.block_size = 4096;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR as u32 | LO_FLAGS_DIRECT_IO as u32;
    // SAFETY: LOOP_CONFIGURE reads a loop_config, whose descriptor `file` keeps open.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, loop_config>::new(config)) }
}
