//! Which loop devices are bound, as sysfs tells it without opening one.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Error, Result};

const BLOCK: &str = "/sys/block";

/// The numbers of the bound devices whose backing file bears `file_name`, in whatever folder.
///
/// # Errors
/// Where sysfs cannot be listed: then nothing is known.
pub(super) fn bound_to(file_name: &str) -> Result<Vec<u32>> {
    let cannot = |error| Error::io("cannot list the block devices of this node", error).with("path", BLOCK);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(BLOCK).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok()) else { continue };
        if backing_file(number)?.is_some_and(|path| path.file_name().is_some_and(|name| name == file_name)) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// The path of the file that the device is bound to, as it was when it was opened; `None` where it is bound to nothing.
///
/// # Errors
/// Where sysfs cannot be read.
pub(super) fn backing_file(number: u32) -> Result<Option<PathBuf>> {
    let path = Path::new(BLOCK).join(format!("loop{number}/loop/backing_file"));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches('\n');
            Ok(Some(text.strip_suffix(" (deleted)").unwrap_or(text).into()))
        }
        Err(error) if error.kind() == NotFound => Ok(None),
        // The file goes away between opening and reading it: so does the binding.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(Error::io("cannot read what a loop device is bound to", error).with("path", path.display())),
    }
}
