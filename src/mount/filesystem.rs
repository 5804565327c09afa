//! Mounting the file system of a device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dunnage_driver_api::{Error, FsType, Result};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_set_flag, fsconfig_set_string};

use super::options::Options;

/// The step in which an option that is unknown, or has a wrong value, is refused.
const OPTIONS: &str = "take the mount options of";

/// The attributes for fsmount(2), whose set never has more than the known 32 bits.
pub(super) fn attributes(options: &Options, read_only: bool) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(options.attributes.read_only(read_only).set as u32)
}

/// Mounts the device, attached nowhere yet: its number is known before anybody can see it.
///
/// # Errors
/// With the kernel's own words: InvalidArgument for an option that the file system does not know, FailedPrecondition for
/// a file system that it cannot mount.
pub(super) fn mount(device: &Path, fs_type: FsType, options: &Options, read_only: bool) -> Result<OwnedFd> {
    let first = try_mount(device, fs_type, options, read_only, false);
    match &first {
        // XFS refuses a clone beside its source, by its UUID, with this number and no word.
        Err(failure) if fs_type == FsType::Xfs && failure.errno == Errno::INVAL && failure.words.is_empty() => {
            try_mount(device, fs_type, options, read_only, true).or(first)
        }
        _ => first,
    }
    .map_err(|failure| failure.error(device, fs_type))
}

fn try_mount(
    device: &Path,
    fs_type: FsType,
    options: &Options,
    read_only: bool,
    without_uuid: bool,
) -> Result<OwnedFd, Failure> {
    let context = rustix::mount::fsopen(fs_type.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| Failure {
        step: "open",
        errno,
        words: String::new(),
    })?;
    let context = context.as_fd();
    let failed = |step: &'static str| move |errno| Failure { step, errno, words: words(context) };
    fsconfig_set_string(context, "source", device).map_err(failed("take the device of"))?;
    if read_only {
        fsconfig_set_flag(context, "ro").map_err(failed("set read-only"))?;
    }
    if without_uuid {
        fsconfig_set_flag(context, "nouuid").map_err(failed("set nouuid of"))?;
    }
    for (key, value) in &options.filesystem {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        }
        .map_err(failed(OPTIONS))?;
    }
    rustix::mount::fsconfig_create(context).map_err(failed("mount"))?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options, read_only))
        .map_err(failed("mount"))
}

/// Why a file system was not mounted.
struct Failure {
    step: &'static str,
    errno: Errno,
    words: String,
}

impl Failure {
    fn error(self, device: &Path, fs_type: FsType) -> Error {
        let Self { step, errno, words } = self;
        let said = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("cannot {step} the {fs_type} file system on {}{said}", device.display());
        if step == OPTIONS && errno == Errno::INVAL {
            return Error::invalid(format!("{message}: correct the mount options"))
                .caused_by(std::io::Error::from(errno));
        }
        let remedy = match errno {
            Errno::NODEV => format!("load the kernel module {fs_type} on this node"),
            Errno::BUSY => "end what holds the device".to_owned(),
            Errno::IO => "check the device".to_owned(),
            Errno::INVAL if words.is_empty() => "see the kernel's log (dmesg) of this moment for the reason".to_owned(),
            Errno::INVAL => "correct the mount options, or see the kernel's log (dmesg)".to_owned(),
            // EUCLEAN: the file system is damaged.
            Errno::UCLEAN => format!("make a copy of the device, then repair the {fs_type} file system by hand"),
            _ => return Error::io(message, errno),
        };
        Error::precondition(format!("{message}: {remedy}")).caused_by(std::io::Error::from(errno))
    }
}

/// What the kernel says of the last failure: one message a read, each with a letter for its weight before it.
pub(super) fn words(context: BorrowedFd<'_>) -> String {
    let mut words = Vec::new();
    let mut message = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        words.push(text.trim().get(2..).unwrap_or_default().to_owned());
    }
    words.join("; ")
}
