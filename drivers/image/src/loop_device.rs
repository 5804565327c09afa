//! Loop devices: binding one to an image, finding the one that is bound, unbinding it.
//!
//! An image is locked (flock) through the very open file description that its loop device keeps. So a taken lock means
//! "bound", at the cost of one system call and whatever process bound it or died since, and one image never gets two
//! devices, whose caches would tear its file system apart.
//!
//! Devices are bound without `LO_FLAGS_AUTOCLEAR`: between stage and publish nobody has a raw block volume's device
//! open, and a pod that holds its number would find another volume's bytes behind it once the number was used again.
//! What a killed process leaves is found by the record it kept before it attached, or through the lock.

mod ioctl;
mod sysfs;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, Result};
use linux_raw_sys::loop_device::{LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) const CONTROL: &str = "/dev/loop-control";

/// How often another process may take the free device that this one was told of before that is an error.
const ATTEMPTS: usize = 100;
/// How long the last ones to close a device are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// An image as the kernel knows it behind a loop device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backing {
    /// The name of the image's file in its folder.
    pub(crate) file_name: String,
    /// The device number of its file system.
    pub(crate) device: u64,
    /// Its inode, which another image may get once this one is deleted.
    pub(crate) inode: u64,
    /// What its device is labelled with: no other image was ever given the same.
    pub(crate) label: String,
}

/// A bound loop device, held open for reading.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    pub(crate) number: u32,
    pub(crate) file: File,
    status: ioctl::Status,
}

/// What a number stands for at this moment.
enum Binding {
    /// Not for the image.
    Other,
    /// For something that is being unbound.
    Leaving,
    /// For the image.
    Bound(LoopDevice),
}

/// Takes the lock that says "bound to a loop device, or about to be"; `false` where somebody has it. It goes with the
/// last descriptor of this open file, which may be a loop device's.
pub(crate) fn lock(image: &File) -> Result<bool> {
    match rustix::fs::flock(image, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::io("cannot lock an image", error)),
    }
}

/// The path of a device.
pub(crate) fn path(number: u32) -> PathBuf {
    format!("/dev/loop{number}").into()
}

/// Binds loop devices, one at a time: two callers would be told of the same free one.
#[derive(Debug, Default)]
pub(crate) struct Attacher {
    one: Mutex<()>,
}

impl Attacher {
    /// Binds a free device to `image`, which is locked.
    ///
    /// # Errors
    /// Where the kernel has no loop driver, or refuses.
    pub(crate) fn attach(
        &self,
        image: &File,
        backing: &Backing,
        block_size: u32,
        direct_io: bool,
    ) -> Result<LoopDevice> {
        let flags = if direct_io { LO_FLAGS_DIRECT_IO as u32 } else { 0 };
        let config = ioctl::Config { file: image, block_size, flags, name: &backing.label };
        let control = open(Path::new(CONTROL), OFlags::RDWR).map_err(no_loop_driver)?;
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            let number =
                ioctl::get_free(&control).map_err(|error| Error::io("cannot get a free loop device", error))?;
            let writable = open(&path(number), OFlags::RDWR).map_err(|error| cannot_open(number, error))?;
            match ioctl::configure(&writable, &config) {
                Err(Errno::BUSY) => continue,
                Err(error) => {
                    return Err(Error::io("cannot bind the image to a loop device", error)
                        .with("image", &backing.file_name)
                        .with("device", path(number).display()));
                }
                Ok(()) => {}
            }
            // Whoever had the number before may have left it read-only.
            ioctl::set_writable(&writable).map_err(|error| {
                Error::io("cannot make a loop device writable", error).with("device", path(number).display())
            })?;
            // Opened for reading before the other is closed: a kernel may refuse to mount what is open for writing.
            return LoopDevice::bound(number, backing)?
                .ok_or_else(|| Error::internal(format!("{} lost its image at once", path(number).display())));
        }
        Err(Error::internal(format!("{ATTEMPTS} free loop devices in a row were taken by other processes")).retry(true))
    }
}

impl LoopDevice {
    /// The device of this number if it is bound to the image, whoever labelled it.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub(crate) fn bound(number: u32, backing: &Backing) -> Result<Option<Self>> {
        Ok(match Self::look(number, backing, OFlags::RDONLY).map_err(|error| cannot_open(number, error))? {
            Binding::Bound(device) => Some(device),
            Binding::Other | Binding::Leaving => None,
        })
    }

    /// Every device that is bound to the image. Costs a few microseconds for each bound device of the node.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub(crate) fn find(backing: &Backing) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for number in sysfs::bound_to(&backing.file_name)? {
            found.extend(Self::bound(number, backing)?);
        }
        Ok(found)
    }

    /// As [`find`](Self::find), for an image that this process has open once and that ought to be free: costs two
    /// system calls where it is.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub(crate) fn find_unexpected(image: &File, backing: &Backing) -> Result<Vec<Self>> {
        // Whoever has it open may be a reader of files as well: only the devices themselves tell.
        if ioctl::is_open_elsewhere(image).unwrap_or(true) { Self::find(backing) } else { Ok(Vec::new()) }
    }

    /// Whether this driver bound it, and not another program.
    pub(crate) fn is_ours(&self, backing: &Backing) -> bool {
        self.status.name == backing.label
    }

    /// Keeps it bound when the last of those who have it open closes it: a release that found it busy had left it to
    /// go by itself.
    pub(crate) fn keep(&self) -> Result<()> {
        if self.status.flags & LO_FLAGS_AUTOCLEAR as u32 == 0 {
            return Ok(());
        }
        ioctl::set_flags(&self.file, self.status.flags & !(LO_FLAGS_AUTOCLEAR as u32))
            .map_err(|error| Error::io("cannot keep a loop device", error).with("device", path(self.number).display()))
    }

    /// Makes the device as large as its image is now.
    ///
    /// # Errors
    /// Where the kernel does not take the size.
    pub(crate) fn refresh(&self) -> Result<()> {
        ioctl::set_capacity(&self.file).map_err(|error| {
            Error::io("cannot give the image's new size to its loop device", error)
                .with("device", path(self.number).display())
        })
    }

    /// The size of the device in bytes.
    ///
    /// # Errors
    /// Where the kernel does not say it.
    pub(crate) fn size(&self) -> Result<u64> {
        ioctl::size(&self.file).map_err(|error| {
            Error::io("cannot read the size of a loop device", error).with("device", path(self.number).display())
        })
    }

    /// What the number stands for. `ENXIO` from open(2) is a device in the middle of being unbound, or none at all: a
    /// container's /dev may have names of devices that are gone.
    fn look(number: u32, backing: &Backing, how: OFlags) -> rustix::io::Result<Binding> {
        let file = match open(&path(number), how) {
            Ok(file) => file,
            Err(Errno::NXIO | Errno::NOENT | Errno::NODEV)
                if !Path::new(&format!("/sys/block/loop{number}/loop")).exists() =>
            {
                return Ok(Binding::Other);
            }
            Err(Errno::NXIO) => return Ok(Binding::Leaving),
            Err(error) => return Err(error),
        };
        match ioctl::status(&file) {
            Ok(status) if (status.device, status.inode) == (backing.device, backing.inode) => {
                Ok(Binding::Bound(Self { number, file, status }))
            }
            Ok(_) | Err(Errno::NXIO) => Ok(Binding::Other),
            Err(error) => Err(error),
        }
    }
}

/// Unbinds the device of this number if it bears the image and its label, and waits until it is really gone.
///
/// # Errors
/// `FailedPrecondition` where it is still mounted or open when time is up.
pub(crate) fn detach(number: u32, backing: &Backing, deadline: Instant) -> Result<()> {
    let until = deadline.min(Instant::now() + PATIENCE);
    let mut pause = Duration::from_millis(1);
    while is_there(number, backing)? {
        // Exclusively, so that what is mounted is not even marked.
        match LoopDevice::look(number, backing, OFlags::RDONLY | OFlags::EXCL) {
            // It goes when this descriptor is closed, unless somebody else has it open too.
            Ok(Binding::Bound(device)) if device.is_ours(backing) => match ioctl::clear(&device.file) {
                Ok(()) => {
                    drop(device);
                    if !is_there(number, backing)? {
                        break;
                    }
                }
                Err(Errno::NXIO) => continue,
                Err(error) => {
                    return Err(Error::io("cannot unbind a loop device", error).with("device", path(number).display()));
                }
            },
            Ok(Binding::Bound(_) | Binding::Other | Binding::Leaving) | Err(Errno::BUSY) => {}
            Err(error) => return Err(cannot_open(number, error)),
        }
        if Instant::now() >= until {
            return Err(Error::precondition(format!(
                "{} is still mounted or open: find who holds it with `lsof {0}` and `findmnt {0}`",
                path(number).display()
            ))
            .with("image", &backing.file_name)
            .retry(true));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

/// Whether the number still stands for the image with its label.
fn is_there(number: u32, backing: &Backing) -> Result<bool> {
    match LoopDevice::look(number, backing, OFlags::RDONLY).map_err(|error| cannot_open(number, error))? {
        Binding::Other => Ok(false),
        Binding::Leaving => Ok(true),
        Binding::Bound(device) => Ok(device.is_ours(backing)),
    }
}

fn open(path: &Path, how: OFlags) -> rustix::io::Result<File> {
    rustix::fs::open(path, how | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

fn no_loop_driver(error: Errno) -> Error {
    let error = Error::io("cannot open the loop driver's control device", error).with("path", CONTROL);
    if Path::new(CONTROL).exists() {
        return error;
    }
    Error::precondition("this node has no loop driver: run `modprobe loop`, and give a container the node's /dev")
        .caused_by(error)
}

fn cannot_open(number: u32, error: Errno) -> Error {
    if error == Errno::NOENT {
        return Error::precondition(format!(
            "{} is missing, though the kernel has the device: give the container the node's /dev",
            path(number).display()
        ));
    }
    Error::io("cannot open a loop device", error).with("device", path(number).display())
}
