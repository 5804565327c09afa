//! Opening devices, and who has them.

use std::fs::{self, File};
use std::io::{self, ErrorKind::NotFound};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunnage_driver_api::{Error, Result};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Device, Kernel};
use crate::identity::{DiskId, attribute};

impl Kernel {
    /// Opens the device of this identity, and proves that it is that: the place and the number of a disk that was pulled
    /// are soon another's. Answers it as it is now.
    ///
    /// # Errors
    /// As open(2): EBUSY with `EXCL` where somebody has it for its own; ENODEV where it is gone, or another is in its place.
    pub(crate) fn open(&self, id: &DiskId, device: &Device, how: OFlags) -> io::Result<(File, Device)> {
        let (file, now) = self.open_as_named(device, how)?;
        // Asked while it is open: from here on what is in its place in sysfs is this disk.
        if self.identity(&now).as_ref() != Some(id) {
            return Err(Errno::NODEV.into());
        }
        Ok((file, now))
    }

    /// Opens what has the place and the number of this device now.
    pub(super) fn open_as_named(&self, device: &Device, how: OFlags) -> io::Result<(File, Device)> {
        let file = File::from(rustix::fs::open(self.path(device), how | OFlags::CLOEXEC, Mode::empty())?);
        let stat = rustix::fs::fstat(file.as_fd())?;
        let number = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        // While it is open its number is its own.
        match Device::at(&device.folder)? {
            Some(now) if is_block && number == device.number && now.number == number => Ok((file, now)),
            _ => Err(Errno::NODEV.into()),
        }
    }

    /// Has the whole disk of a device for this process among those that ask by flock(2), as udev and sfdisk do, until what
    /// is answered is dropped.
    ///
    /// # Errors
    /// As flock(2): EWOULDBLOCK where somebody else has it, for a second.
    pub(crate) fn lock(&self, device: &Device) -> io::Result<File> {
        let whole = Device::at(&device.disk)?.ok_or(Errno::NODEV)?;
        let (file, _) = self.open_as_named(&whole, OFlags::RDONLY)?;
        for _ in 0..10 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // udev looks at each disk that somebody has written to, and is done soon.
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(100)),
                locked => return locked.map(|()| file).map_err(io::Error::from),
            }
        }
        Err(Errno::WOULDBLOCK.into())
    }

    /// Whether a device is mounted where this process sees it. To open it exclusively would tell that too, and be in the way
    /// of whoever formats or mounts it at this moment.
    ///
    /// # Errors
    /// Where the mounts cannot be read.
    pub(crate) fn is_mounted(&self, device: &Device) -> io::Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(has_mount(&mounts, &device.number, &self.path(device)))
    }

    /// Which subsystem of the kernel's NVMe target hands a device, its disk or a partition of it to other machines: the
    /// target does not open it for its own.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn exported_by(&self, device: &Device) -> Result<Option<String>> {
        let folder = self.sys.join("kernel/config/nvmet/subsystems");
        let cannot = |error| Error::io("cannot see what the NVMe target exports", error).with("path", folder.display());
        for subsystem in entries(&folder).map_err(cannot)? {
            for namespace in entries(&subsystem.join("namespaces")).map_err(cannot)? {
                let Some(path) = attribute(&namespace, "device_path") else { continue };
                let is_one =
                    |named: Device| named.disk == device.disk && (named == *device || named.is_one_whole(device));
                if self.behind(Path::new(&path))?.is_some_and(is_one) {
                    return Ok(Some(subsystem.file_name().unwrap_or_default().to_string_lossy().into_owned()));
                }
            }
        }
        Ok(None)
    }
}

/// Whether a device is in such a list: by its number, or, since those of btrfs have numbers of their own, by its name.
fn has_mount(mounts: &str, number: &str, path: &Path) -> bool {
    mounts.lines().any(|line| {
        let Some((place, source)) = line.split_once(" - ") else { return false };
        place.split(' ').nth(2) == Some(number) || source.split(' ').nth(1).is_some_and(|name| Path::new(name) == path)
    })
}

/// The paths in a folder; none where it is not there.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, makedev, mknodat};

    use super::*;
    use crate::kernel::tests::Fake;

    /// A fake disk with the number of a loop device that is there, and a node of it; nothing without root.
    fn disk(fake: &Fake) -> Option<Device> {
        fake.device("vda", "7:0", &[("serial", "a")]);
        let node = fake.folder.path().join("dev/vda");
        let made = mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, makedev(7, 0));
        if made.is_err() || File::open(&node).is_err() {
            eprintln!("skipped: needs root and the module loop");
            return None;
        }
        Some(fake.named("vda"))
    }

    #[test]
    fn a_disk_that_came_in_the_place_of_another_is_not_opened_as_that() {
        let fake = Fake::new();
        let Some(device) = disk(&fake) else { return };
        let (kernel, id) = (fake.kernel(), DiskId("serial:a".into()));
        assert_eq!(kernel.open(&id, &device, OFlags::RDONLY).unwrap().1, device);
        let folder = fake.folder.path().join("sys/devices/vda");
        fs::write(folder.join("size"), "409600").unwrap();
        assert_eq!(kernel.open(&id, &device, OFlags::RDONLY).unwrap().1.size, 200 << 20, "it is as it is now");
        // The same name, place and number, and another disk.
        fs::write(folder.join("serial"), "b").unwrap();
        let error = kernel.open(&id, &device, OFlags::RDONLY).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NODEV));
    }

    #[test]
    fn what_is_mounted_is_seen_by_its_number_and_by_its_name() {
        let mounts = "29 1 8:16 / /a rw,relatime shared:1 - ext4 /dev/disk/by-id/x rw\n\
                      30 1 0:40 / /b rw - btrfs /dev/sdc rw,subvol=/\n";
        for (number, path, wanted) in
            [("8:16", "/dev/sdb", true), ("8:32", "/dev/sdc", true), ("8:1", "/dev/sd", false), ("0", "/b", false)]
        {
            assert_eq!(has_mount(mounts, number, Path::new(path)), wanted, "{number} {path}");
        }
    }

    #[test]
    fn a_disk_that_a_program_has_locked_is_not_locked() {
        let fake = Fake::new();
        let Some(device) = disk(&fake) else { return };
        let kernel = fake.kernel();
        let held = kernel.lock(&device).unwrap();
        assert_eq!(Errno::from_io_error(&kernel.lock(&device).unwrap_err()), Some(Errno::WOULDBLOCK));
        drop(held);
        kernel.lock(&device).unwrap();
    }

    #[test]
    fn what_the_nvme_target_hands_out_is_seen_as_a_disk_and_as_a_partition() {
        let fake = Fake::new();
        let Some(whole) = disk(&fake) else { return };
        fake.device("vda/vda1", "7:1", &[("partition", "1"), ("start", "2048")]);
        let (kernel, part) = (fake.kernel(), fake.named("vda1"));
        assert_eq!(kernel.exported_by(&whole).unwrap(), None);
        let namespace = fake.folder.path().join("sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1");
        fs::create_dir_all(&namespace).unwrap();
        fs::write(namespace.join("device_path"), kernel.path(&whole).to_str().unwrap()).unwrap();
        for device in [&whole, &part] {
            assert_eq!(kernel.exported_by(device).unwrap().as_deref(), Some("nqn.x"), "{}", device.name);
        }
    }
}
