//! The loop driver's ioctls and a file's lease: the one file of this driver that the compiler cannot check.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, AsRawFd};

use linux_raw_sys::general::F_SETSIG;
use linux_raw_sys::ioctl::{BLKGETSIZE64, BLKROSET};
use linux_raw_sys::loop_device::{
    LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64, LOOP_SET_CAPACITY, LOOP_SET_STATUS64,
    loop_config, loop_info64,
};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};

/// What a loop device is to be bound to, and how.
pub(super) struct Config<'a, F> {
    /// The backing file; the device keeps this very open file description.
    pub(super) file: &'a F,
    /// The logical block size in bytes: 512 to 4096, a power of two.
    pub(super) block_size: u32,
    /// `LO_FLAGS_*`.
    pub(super) flags: u32,
    /// A name of at most 63 bytes, given back by [`status`].
    pub(super) name: &'a str,
}

/// What a loop device is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The device number of the backing file's file system.
    pub(crate) device: u64,
    /// The backing file's inode.
    pub(crate) inode: u64,
    /// `LO_FLAGS_*`.
    pub(crate) flags: u32,
    /// The name it was bound with.
    pub(crate) name: String,
}

/// Takes back from a block device that it is read-only for everybody.
pub(super) fn set_writable(device: impl AsFd) -> Result<()> {
    // SAFETY: BLKROSET reads one int through its argument.
    unsafe { ioctl(device, Setter::<{ BLKROSET as Opcode }, i32>::new(0)) }
}

/// The number of a loop device that is bound to nothing at this moment, made if there is none.
pub(super) fn get_free(control: impl AsFd) -> Result<u32> {
    struct GetFree;

    // SAFETY: LOOP_CTL_GET_FREE takes no argument and answers with its return value alone.
    unsafe impl Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;

        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }

        fn as_ptr(&mut self) -> *mut c_void {
            std::ptr::null_mut()
        }

        unsafe fn output_from_ptr(number: IoctlOutput, _: *mut c_void) -> Result<u32> {
            u32::try_from(number).map_err(|_| Errno::INVAL)
        }
    }

    // SAFETY: as above.
    unsafe { ioctl(control, GetFree) }
}

/// Binds a device that is bound to nothing.
pub(super) fn configure<F: AsRawFd>(device: impl AsFd, config: &Config<'_, F>) -> Result<()> {
    let argument = loop_config {
        fd: config.file.as_raw_fd().cast_unsigned(),
        block_size: config.block_size,
        info: loop_info64 { lo_flags: config.flags, lo_file_name: padded(config.name), ..empty_info() },
        __reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a loop_config, whose file descriptor `config.file` keeps open.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, loop_config>::new(argument)) }
}

/// What the device is bound to; `ENXIO` where to nothing.
pub(super) fn status(device: impl AsFd) -> Result<Status> {
    let info = info(device)?;
    let name = CStr::from_bytes_until_nul(&info.lo_file_name).map(|name| name.to_string_lossy().into_owned());
    Ok(Status { device: info.lo_device, inode: info.lo_inode, flags: info.lo_flags, name: name.unwrap_or_default() })
}

/// Changes the flags of a bound device; the kernel takes no other than `LO_FLAGS_AUTOCLEAR` away.
pub(super) fn set_flags(device: impl AsFd, flags: u32) -> Result<()> {
    let argument = loop_info64 { lo_flags: flags, ..info(&device)? };
    // SAFETY: LOOP_SET_STATUS64 reads a loop_info64.
    unsafe { ioctl(device, Setter::<LOOP_SET_STATUS64, loop_info64>::new(argument)) }
}

/// Unbinds the device when the last of those who have it open closes it.
pub(super) fn clear(device: impl AsFd) -> Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }
}

/// Takes the size of the backing file for the device's.
pub(super) fn set_capacity(device: impl AsFd) -> Result<()> {
    // SAFETY: LOOP_SET_CAPACITY takes an argument that it does not read.
    unsafe { ioctl(device, IntegerSetter::<LOOP_SET_CAPACITY>::new_usize(0)) }
}

/// The size of a block device in bytes.
pub(crate) fn size(device: impl AsFd) -> Result<u64> {
    // SAFETY: BLKGETSIZE64 writes a 64-bit number, whatever its name in the header says of its type.
    unsafe { ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }
}

/// Whether the file is open elsewhere, in whatever process or loop device. It is known from a lease, which the kernel
/// grants for a file that is open nowhere else, and which is given back at once.
///
/// # Errors
/// Where the file system grants no leases.
pub(super) fn is_open_elsewhere(file: impl AsFd) -> Result<bool> {
    let fd = file.as_fd().as_raw_fd();
    let fcntl = |command, argument: libc::c_int| {
        // SAFETY: these commands take a number, and `file` keeps the descriptor open.
        match unsafe { libc::fcntl(fd, command, argument) } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            _ => Ok(()),
        }
    };
    // Who opens the file while it is leased has the kernel send a signal: not SIGIO, which would end the process.
    fcntl(F_SETSIG as libc::c_int, libc::SIGURG)?;
    match fcntl(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => fcntl(libc::F_SETLEASE, libc::F_UNLCK).map(|()| false),
        Err(Errno::AGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

fn info(device: impl AsFd) -> Result<loop_info64> {
    // SAFETY: LOOP_GET_STATUS64 writes a whole loop_info64.
    unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, loop_info64>::new()) }
}

fn empty_info() -> loop_info64 {
    loop_info64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    }
}

fn padded(name: &str) -> [u8; 64] {
    let mut field = [0; 64];
    for (to, from) in field[..63].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    field
}
