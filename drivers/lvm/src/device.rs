//! The kernel's devices of logical volumes, as sysfs tells of them: found by their ids, without LVM and without a name that
//! udev would have to make.

use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Commands, Error, ErrorKind, Result};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::group::DMSETUP;

const BLOCK: &str = "/sys/block";

/// A device of the device mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// `dm-3`.
    kernel: String,
    /// `LVM-` and the ids of the group and of the logical volume, then what it is of that.
    pub(crate) uuid: String,
}

/// The device with this id.
///
/// # Errors
/// Where sysfs cannot be read: then nothing is known.
pub(crate) fn find(uuid: &str) -> Result<Option<Device>> {
    find_by("uuid", uuid)
}

/// The device with this name.
///
/// # Errors
/// Where sysfs cannot be read: then nothing is known.
pub(crate) fn find_named(name: &str) -> Result<Option<Device>> {
    find_by("name", name)
}

/// The names of those devices of a group that take no reads and writes now.
///
/// # Errors
/// Where sysfs cannot be read.
pub(crate) fn suspended(group: &str) -> Result<Vec<String>> {
    let prefix = format!("LVM-{group}");
    let mut found = Vec::new();
    for kernel in all()? {
        let of_group = read(&kernel, "dm/uuid")?.is_some_and(|uuid| uuid.starts_with(&prefix));
        if of_group && read(&kernel, "dm/suspended")?.as_deref() == Some("1") {
            found.extend(read(&kernel, "dm/name")?);
        }
    }
    Ok(found)
}

fn find_by(attribute: &str, value: &str) -> Result<Option<Device>> {
    for kernel in all()? {
        if read(&kernel, &format!("dm/{attribute}"))?.as_deref() == Some(value) {
            // It may have gone since.
            return Ok(read(&kernel, "dm/uuid")?.map(|uuid| Device { kernel, uuid }));
        }
    }
    Ok(None)
}

/// The kernel's names of all devices of the device mapper.
fn all() -> Result<Vec<String>> {
    let cannot = |error| Error::io("cannot list the block devices of this node", error).with("path", BLOCK);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(BLOCK).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name().to_string_lossy().into_owned();
        names.extend(Some(name).filter(|name| name.starts_with("dm-")));
    }
    Ok(names)
}

/// What sysfs says of a device; `None` where it is gone.
fn read(kernel: &str, attribute: &str) -> Result<Option<String>> {
    let path = Path::new(BLOCK).join(kernel).join(attribute);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == NotFound => Ok(None),
        // What a device says that goes while it is asked.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NODEV | Errno::INVAL)) => Ok(None),
        Err(error) => {
            Err(Error::io("cannot read what the kernel says of a device", error).with("path", path.display()))
        }
    }
}

impl Device {
    /// The kernel's own name of it, which needs no udev.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.kernel)
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// Where it is gone.
    pub(crate) fn size(&self) -> Result<u64> {
        let sectors = read(&self.kernel, "size")?.and_then(|text| text.parse::<u64>().ok());
        sectors.map(|sectors| sectors * 512).ok_or_else(|| self.gone())
    }

    /// Opens it, and proves that it is this one.
    ///
    /// # Errors
    /// `FailedPrecondition` where it has no node in `/dev`, or is gone.
    pub(crate) fn open(&self, writable: bool) -> Result<File> {
        let path = self.path();
        let file = File::options().read(true).write(writable).open(&path).map_err(|error| match error.kind() {
            NotFound => Error::precondition(format!(
                "{} is not there: give the container the node's /dev, which has every device of the kernel",
                path.display()
            )),
            _ => Error::io(format!("cannot open {}", path.display()), error),
        })?;
        let stat = rustix::fs::fstat(file.as_fd())
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        let number = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        let is_it = is_block && read(&self.kernel, "dev")?.as_deref() == Some(&number);
        if is_it && read(&self.kernel, "dm/uuid")?.as_deref() == Some(&self.uuid) { Ok(file) } else { Err(self.gone()) }
    }

    /// The devices that it alone is made of, each before what that is made of: the images of a RAID. None of a thin volume,
    /// whose pool is everybody's.
    ///
    /// # Errors
    /// Where sysfs cannot be read.
    pub(crate) fn parts(&self) -> Result<Vec<Self>> {
        // `LVM-` and 32 characters of the group's id.
        let group = self.uuid.get(..36).unwrap_or(&self.uuid);
        let mut parts = Vec::new();
        for kernel in self.slaves()? {
            let Some(uuid) = read(&kernel, "dm/uuid")? else { continue };
            if uuid.starts_with(group) && !uuid.ends_with("pool") {
                let part = Self { kernel, uuid };
                let below = part.parts()?;
                parts.push(part);
                parts.extend(below);
            }
        }
        Ok(parts)
    }

    fn slaves(&self) -> Result<Vec<String>> {
        let path = Path::new(BLOCK).join(&self.kernel).join("slaves");
        let cannot = |error| Error::io("cannot list what a device is made of", error).with("path", path.display());
        match std::fs::read_dir(&path) {
            Ok(entries) => {
                let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
                names.collect::<std::io::Result<_>>().map_err(cannot)
            }
            Err(error) if error.kind() == NotFound => Ok(Vec::new()),
            Err(error) => Err(cannot(error)),
        }
    }

    fn gone(&self) -> Error {
        Error::precondition(format!("the device {} is gone", self.uuid))
    }
}

/// Takes a device from the kernel, with the node that LVM made for it; succeeds where it is not there.
///
/// # Errors
/// `FailedPrecondition` where somebody has it open.
pub(crate) fn remove(commands: &dyn Commands, uuid: &str) -> Result<()> {
    let Some(device) = find(uuid)? else { return Ok(()) };
    let Some(name) = read(&device.kernel, "dm/name")? else { return Ok(()) };
    // By its name, since the program then removes the node too.
    let command = DMSETUP.command().args(["remove", "--noudevsync", "--noudevrules", "--retry", &name]);
    let removed = commands.run(&command).and_then(|output| output.success(&command));
    if let (Err(error), Some(device)) = (removed, find(uuid)?) {
        let path = device.path();
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!("{} is still in use on this node: unmount it everywhere, end who has it open", path.display()),
        )
        .caused_by(error)
        .retry(true));
    }
    // Its number is another device's soon.
    match std::fs::remove_file(Path::new("/dev/mapper").join(&name)) {
        Err(error) if error.kind() != NotFound => {
            Err(Error::io("cannot remove the node of a device that is gone", error).with("name", name))
        }
        _ => Ok(()),
    }
}
