//! A block device by its number: what is known of it without opening it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Bytes, DeviceSource, Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A block device by its number, and by the kernel's count of what that number has stood for: the number alone is the
/// device's own only while it is held open or attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceNumber {
    major: u32,
    minor: u32,
    /// The `diskseq`; nothing on a kernel before 5.15, and for a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl DeviceNumber {
    /// The number of the open device of a source, whose name is proven to be its own.
    pub(super) fn of(source: &DeviceSource) -> Result<Self> {
        let held = rustix::fs::fstat(&source.device).map(|seen| number(&seen));
        let named = rustix::fs::stat(&source.path).map(|seen| number(&seen));
        match (held, named) {
            (Ok(Some(held)), Ok(Some(named))) if held == named => Ok(Self { sequence: held.sequence_now(), ..held }),
            (held, named) => Err(Error::internal(format!(
                "the driver gave a device that is not the one {} names ({held:?}, {named:?})",
                source.path.display()
            ))),
        }
    }

    /// Its size, as the kernel shows it now.
    pub(super) fn size(self) -> Result<Bytes> {
        let sectors = self.attribute("size")?;
        sectors
            .parse::<u64>()
            .map(|sectors| Bytes::new(sectors.saturating_mul(512)))
            .map_err(|error| Error::internal(format!("cannot read the size of device {self}")).caused_by(error))
    }

    /// Whether the kernel refuses to write to it.
    pub(super) fn is_read_only(self) -> Result<bool> {
        Ok(self.attribute("ro")? != "0")
    }

    /// Whether the kernel still has this device; another one that got its number is not it.
    pub(super) fn exists(self) -> bool {
        match self.sequence {
            Some(sequence) => self.sequence_now() == Some(sequence),
            None => self.folder().exists(),
        }
    }

    fn sequence_now(self) -> Option<u64> {
        self.read("diskseq").ok()?.parse().ok()
    }

    /// What sysfs says of it now, which one read gives whole.
    fn read(self, name: &str) -> io::Result<String> {
        let mut text = [0; 64];
        let length = File::open(self.folder().join(name))?.read(&mut text)?;
        Ok(String::from_utf8_lossy(&text[..length]).trim().to_owned())
    }

    fn attribute(self, name: &str) -> Result<String> {
        if !self.exists() {
            return Err(Error::precondition(format!("the device {self} is gone")));
        }
        self.read(name).map_err(|error| Error::io(format!("cannot read the {name} of device {self}"), error))
    }

    fn folder(self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{self}"))
    }

    /// Opens the device for reading by its name, or answers `None` where that name is not its own any more.
    pub(super) fn open(self, path: &Path, exclusive: bool) -> rustix::io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | if exclusive { OFlags::EXCL } else { OFlags::empty() };
        match rustix::fs::stat(path) {
            Ok(seen) if number(&seen) == Some(Self { sequence: None, ..self }) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        match rustix::fs::open(path, flags, Mode::empty()) {
            // Looked at while it is open, when its number stays its own.
            Ok(device) => Ok(self.exists().then_some(device)),
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(Errno::BUSY) if !self.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until nothing has the device for its own any more: no file system, no program that formats it.
    ///
    /// # Errors
    /// FailedPrecondition where something still has it at `until`.
    pub(super) fn wait_until_free(self, path: &Path, until: Instant) -> Result<()> {
        loop {
            match self.open(path, true) {
                Ok(_) => return Ok(()),
                // There is no event to wait for: the kernel ends a file system some time after its last unmount.
                Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Err(Errno::BUSY) => {
                    return Err(Error::precondition(format!(
                        "{} is still in use on this node: unmount it everywhere, also in other mount namespaces, and \
                         end programs that hold it",
                        path.display()
                    ))
                    .retry(true));
                }
                Err(error) => return Err(Error::io(format!("cannot open {}", path.display()), error)),
            }
        }
    }
}

fn number(seen: &rustix::fs::Stat) -> Option<DeviceNumber> {
    (FileType::from_raw_mode(seen.st_mode) == FileType::BlockDevice).then(|| DeviceNumber {
        major: rustix::fs::major(seen.st_rdev),
        minor: rustix::fs::minor(seen.st_rdev),
        sequence: None,
    })
}
