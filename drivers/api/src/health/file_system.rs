//! What a file system has noted of its own damage and of its disks, as the kernel shows it.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use linux_raw_sys::general::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC};

use super::{HealthFinding, HealthStatus, btrfs, xfs};

/// Something that is wrong with a file system.
pub(super) struct Trouble {
    kind: Kind,
    what: String,
    remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Damaged,
    DeviceErrors,
    DeviceMissing,
}

impl Trouble {
    fn damaged(what: String, remedy: &str) -> Self {
        Self { kind: Kind::Damaged, what, remedy: remedy.into() }
    }

    /// What it is in a volume whose file system this is.
    pub(super) fn of_volume(&self) -> HealthFinding {
        let (status, reason) = match self.kind {
            Kind::Damaged => (HealthStatus::DataLoss, "FilesystemDamaged"),
            // Another copy of the same may have been there.
            Kind::DeviceErrors => (HealthStatus::Degraded, "DeviceErrors"),
            Kind::DeviceMissing => (HealthStatus::Degraded, "DeviceMissing"),
        };
        HealthFinding::new(status, reason, format!("the file system of the volume {}: {}", self.what, self.remedy))
    }

    /// What it is in each volume of a store that this is: nobody knows which of them it is.
    pub(super) fn of_store(&self, place: &Path) -> HealthFinding {
        let reason = match self.kind {
            Kind::Damaged => "StoreDamaged",
            Kind::DeviceErrors => "StoreDeviceErrors",
            Kind::DeviceMissing => "StoreDeviceMissing",
        };
        let message = format!("the file system of the store {} {}: {}", place.display(), self.what, self.remedy);
        HealthFinding::new(HealthStatus::Degraded, reason, message)
    }

    /// The same as what `check` says of the store.
    pub(super) fn finding(self, place: &Path) -> crate::Finding {
        crate::Finding::warning(format!("the file system of {} {}", place.display(), self.what), self.remedy)
    }
}

/// What is wrong with the file system that an open file lies on; nothing where the kernel tells nothing.
pub(super) fn troubles(file: impl AsFd) -> Vec<Trouble> {
    let Ok(fs) = rustix::fs::fstatfs(&file) else { return Vec::new() };
    let is = |magic: u32| u64::try_from(fs.f_type).is_ok_and(|found| found == u64::from(magic));
    if is(BTRFS_SUPER_MAGIC) {
        btrfs::devices(&file).iter().flat_map(of_btrfs).collect()
    } else if is(EXT4_SUPER_MAGIC) {
        of_ext4(&file).into_iter().collect()
    } else if is(XFS_SUPER_MAGIC) {
        of_xfs(&file).into_iter().collect()
    } else {
        Vec::new()
    }
}

fn of_btrfs(device: &btrfs::Device) -> Vec<Trouble> {
    let id = device.id;
    let mut troubles = Vec::new();
    if device.missing {
        troubles.push(Trouble {
            kind: Kind::DeviceMissing,
            what: format!("is without its device {id}"),
            remedy: "bring it back or replace it (`btrfs replace`): the next failure may take the data along".into(),
        });
    }
    let counted: Vec<_> =
        device.errors.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    if !counted.is_empty() {
        troubles.push(Trouble {
            kind: Kind::DeviceErrors,
            what: format!("has counted {} of its device {id}", counted.join(", ")),
            remedy: "`btrfs scrub start` mends what has another copy, and the kernel log names the files that have \
                     none; replace a device that goes on failing, then set the counts to 0 (`btrfs device stats -z`)"
                .into(),
        });
    }
    troubles
}

/// What ext4 keeps until e2fsck has run: how often it found its own structures damaged or could not read them.
fn of_ext4(file: impl AsFd) -> Option<Trouble> {
    let device = rustix::fs::fstat(file).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let folder = PathBuf::from("/sys/fs/ext4").join(device.file_name()?);
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let count = number("errors_count").filter(|count| *count > 0)?;
    let function = fs::read_to_string(folder.join("last_error_func")).unwrap_or_default();
    let inode = number("last_error_ino").filter(|inode| *inode > 0).map(|inode| format!(" of inode {inode}"));
    let last = format!("{}{}", function.trim(), inode.unwrap_or_default());
    Some(Trouble::damaged(
        format!("has found itself damaged {count} times, the last in {last}"),
        "save what can be read, then have it checked by e2fsck: of a volume that is staged anew by `e2fsck -p`",
    ))
}

fn of_xfs(file: impl AsFd) -> Option<Trouble> {
    let sick = xfs::sick(file)?;
    Some(Trouble::damaged(
        format!("has found itself damaged in {sick}"),
        "save what can be read, unmount it, and run xfs_repair: the kernel forgets at the next mount what it found",
    ))
}
