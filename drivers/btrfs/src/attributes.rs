//! Compression and copy-on-write: what the top folder of a volume gives to what is made in it.
//!
//! The kernel keeps both with each file and each folder, which have them from the folder they are made in. So a change
//! is for what is made from now on, in the volume's top folder and in folders that are made there.

use std::os::fd::AsFd;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Result};
use rustix::fs::{IFlags, XattrFlags};
use rustix::io::Errno;

use crate::config::{Attributes, Compression};

const PROPERTY: &str = "btrfs.compression";

/// Gives them to a volume, durably; what is not named stays as it is.
///
/// # Errors
/// InvalidArgument, before anything is changed, for compression without copy-on-write.
pub(crate) fn set(volume: &Folder, wanted: Attributes) -> Result<()> {
    let failed = |error: Errno| volume.failed("set the attributes of", "")(error.into());
    let flags = rustix::fs::ioctl_getflags(volume).map_err(failed)?;
    let now_compressed = compressed(volume).map_err(failed)?;
    let (is_nodatacow, compression) = (flags.contains(IFlags::NOCOW), wanted.compression);
    let nodatacow = wanted.nodatacow.unwrap_or(is_nodatacow);
    let compress = compression.map_or(now_compressed, |compression| compression != Compression::None);
    if nodatacow && compress {
        return Err(Error::invalid(
            "`nodatacow` is true and `compression` is not none: a file that is overwritten in place cannot be \
             compressed; set `compression` to none, or `nodatacow` to false",
        ));
    }
    // In this order, since the kernel drops the one property where it takes the other flag, and refuses it afterwards.
    if nodatacow && now_compressed {
        rustix::fs::fremovexattr(volume, PROPERTY).map_err(failed)?;
    }
    if nodatacow != is_nodatacow {
        let mut flags = rustix::fs::ioctl_getflags(volume).map_err(failed)?;
        flags.set(IFlags::NOCOW, nodatacow);
        rustix::fs::ioctl_setflags(volume, flags).map_err(failed)?;
    }
    if let Some(compression) = compression.filter(|_| !nodatacow) {
        rustix::fs::fsetxattr(volume, PROPERTY, compression.as_str().as_bytes(), XattrFlags::empty())
            .map_err(failed)?;
    }
    volume.sync().map_err(volume.failed("sync", ""))
}

/// Whether the folder has a way to compress of its own.
fn compressed(volume: impl AsFd) -> rustix::io::Result<bool> {
    let mut value = [0; 16];
    match rustix::fs::fgetxattr(volume, PROPERTY, &mut value) {
        Ok(length) => Ok(!matches!(value.get(..length), Some(b"" | b"no" | b"none"))),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(error),
    }
}
