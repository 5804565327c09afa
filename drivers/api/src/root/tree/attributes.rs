//! What a file has beside its data.
//!
//! The order is the kernel's: a change of the owner takes the set-user-id bit and the capabilities away, an ACL changes
//! the mode, everything changes the times.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, fchmod, fchown,
    fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, ioctl_getflags, ioctl_setflags, lgetxattr,
    llistxattr, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::{Copier, Failed, to};
use crate::root::folder::Folder;

/// The greatest size of a value, and of the list of names.
pub(super) const LARGEST: usize = 64 << 10;

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// What the kernel makes by itself, or shows a second time under another name.
const NOT_COPIED: [&str; 3] = ["security.evm", "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"];

/// The flags that a copy has too. To be immutable or append-only is not among them: a copy must be removable.
const FLAGS: IFlags = IFlags::NOATIME.union(IFlags::NODUMP).union(IFlags::NOCOW).union(IFlags::COMPRESSED);

/// A file by its descriptor, or, where it cannot be opened, by its name in its folder.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    File(&'a File),
    Folder(&'a Folder),
    Entry(&'a Folder, &'a OsStr),
}

pub(super) fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

impl Copier<'_> {
    /// Gives a copy the owner and the attributes of its original, except the default ACL of a folder.
    pub(super) fn attributes(&mut self, from: At<'_>, copy: At<'_>, stat: &Stat) -> Result<(), Failed> {
        let has = copy.stat().map_err(to("look at the copy of"))?;
        if (has.st_uid, has.st_gid) != (stat.st_uid, stat.st_gid) {
            let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            copy.chown(owner, group).map_err(to(format!("give to {owner}:{group} the copy of")))?;
        }
        let length = match from.list(&mut self.list) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
            listed => listed.map_err(to("list the attributes of"))?,
        };
        for name in self.list[..length].split(|byte| *byte == 0).map(OsStr::from_bytes) {
            if !name.is_empty() && name != DEFAULT_ACL && !NOT_COPIED.iter().any(|other| name == *other) {
                attribute(from, copy, name, &mut self.value)?;
            }
        }
        Ok(())
    }

    /// Gives a folder the ACL that what is made in it gets.
    pub(super) fn default_acl(&mut self, source: &Folder, target: &Folder) -> Result<(), Failed> {
        attribute(At::Folder(source), At::Folder(target), OsStr::new(DEFAULT_ACL), &mut self.value)
    }

    /// Takes away the ACLs that a folder got from the one it was made in.
    pub(super) fn without_acls(&self, target: &Folder) -> Result<(), Failed> {
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            match fremovexattr(target, name) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(to("remove the ACL of the copy of")(error)),
            }
        }
        Ok(())
    }

    /// Gives an empty copy the flags of its original, of which some are for the data to come.
    pub(super) fn flags(&self, source: impl AsFd, copy: impl AsFd) -> Result<(), Failed> {
        // Not all file systems have flags.
        let (Ok(wanted), Ok(has)) = (ioctl_getflags(&source), ioctl_getflags(&copy)) else { return Ok(()) };
        let flags = has.difference(FLAGS).union(wanted.intersection(FLAGS));
        if flags == has {
            return Ok(());
        }
        ioctl_setflags(&copy, flags).map_err(to("set the flags of the copy of"))
    }

    /// Sets what comes last, and tells that the copy is whole.
    pub(super) fn finish(&self, copy: At<'_>, mode: u32, times: &Timestamps) -> Result<(), Failed> {
        copy.chmod(mode).map_err(to("set the mode of the copy of"))?;
        copy.set_times(times).map_err(to("set the times of the copy of"))
    }
}

/// Copies one attribute, if it is there.
fn attribute(from: At<'_>, copy: At<'_>, name: &OsStr, value: &mut [u8]) -> Result<(), Failed> {
    let shown = || name.to_string_lossy();
    let length = match from.get(name, value) {
        Err(Errno::NODATA) => return Ok(()),
        Err(error) if is_optional(name, error) => return Ok(()),
        read => read.map_err(to(format!("read the attribute {} of", shown())))?,
    };
    match copy.set(name, &value[..length]) {
        Err(error) if is_optional(name, error) => Ok(()),
        set => set.map_err(to(format!("set the attribute {} of the copy of", shown()))),
    }
}

/// Whether a copy goes without an attribute that this error keeps it from. What a security module keeps there is the
/// module's, except capabilities. Where the file system has no ACLs there is none to be copied.
fn is_optional(name: &OsStr, error: Errno) -> bool {
    let name = name.as_bytes();
    if name.starts_with(b"security.") && name != b"security.capability" {
        return matches!(error, Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL);
    }
    name.starts_with(b"system.") && error == Errno::OPNOTSUPP
}

impl At<'_> {
    fn stat(self) -> io::Result<Stat> {
        match self {
            Self::File(file) => Ok(fstat(file)?),
            Self::Folder(folder) => Ok(fstat(folder)?),
            Self::Entry(folder, name) => folder.stat(name),
        }
    }

    fn chown(self, owner: Uid, group: Gid) -> Result<(), Errno> {
        let (owner, group) = (Some(owner), Some(group));
        match self {
            Self::File(file) => fchown(file, owner, group),
            Self::Folder(folder) => fchown(folder, owner, group),
            Self::Entry(folder, name) => rustix::fs::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn chmod(self, mode: u32) -> Result<(), Errno> {
        let bits = Mode::from_raw_mode(mode);
        match self {
            Self::File(file) => fchmod(file, bits),
            Self::Folder(folder) => fchmod(folder, bits),
            // It has none of its own, and a call by its name would follow it.
            Self::Entry(..) if FileType::from_raw_mode(mode) == FileType::Symlink => Ok(()),
            Self::Entry(folder, name) => chmodat(folder, name, bits, AtFlags::empty()),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::File(file) => futimens(file, times),
            Self::Folder(folder) => futimens(folder, times),
            Self::Entry(folder, name) => utimensat(folder, name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn list(self, names: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => flistxattr(file, names),
            Self::Folder(folder) => flistxattr(folder, names),
            Self::Entry(folder, name) => llistxattr(by_descriptor(folder, name), names),
        }
    }

    fn get(self, attribute: &OsStr, value: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => fgetxattr(file, attribute, value),
            Self::Folder(folder) => fgetxattr(folder, attribute, value),
            Self::Entry(folder, name) => lgetxattr(by_descriptor(folder, name), attribute, value),
        }
    }

    fn set(self, attribute: &OsStr, value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::File(file) => fsetxattr(file, attribute, value, flags),
            Self::Folder(folder) => fsetxattr(folder, attribute, value, flags),
            Self::Entry(folder, name) => lsetxattr(by_descriptor(folder, name), attribute, value, flags),
        }
    }
}

/// The calls for attributes know no folder to begin at. The last name of a path they do not follow.
fn by_descriptor(folder: &Folder, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    path.push(name);
    path
}
