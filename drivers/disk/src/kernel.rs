//! The kernel's block devices, as sysfs tells of them.

mod opening;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind::NotFound};
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Error, Result};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::gpt;
use crate::identity::{self, DiskId, attribute, of_disk};

/// A disk or a partition that the kernel has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The kernel's name of it: `sdb`, `nvme0n1p2`.
    pub(crate) name: String,
    /// Its number, as sysfs writes it: `8:16`.
    number: String,
    /// Its folder in sysfs, and that of its disk.
    folder: PathBuf,
    disk: PathBuf,
    /// In bytes.
    pub(crate) size: u64,
    /// The number of the partition and the byte where it begins.
    partition: Option<(u32, u64)>,
}

/// Where the kernel tells of devices, and has them.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    sys: PathBuf,
    dev: PathBuf,
}

impl Kernel {
    /// That of this node.
    pub(crate) fn of_node() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into() }
    }

    /// All devices, in the order of their names.
    ///
    /// # Errors
    /// Where they cannot be listed: then nothing is known.
    pub(crate) fn all(&self) -> Result<Vec<Device>> {
        let folder = self.sys.join("class/block");
        let cannot =
            |error| Error::io("cannot list the block devices of this node", error).with("path", folder.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(cannot)? {
            // One that goes meanwhile is gone.
            found.extend(Device::at(&entry.map_err(cannot)?.path()).map_err(cannot)?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The device behind a path, where it is one.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub(crate) fn behind(&self, path: &Path) -> Result<Option<Device>> {
        let stat = match rustix::fs::stat(path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice => stat,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot look at {}", path.display()), error)),
        };
        let number = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        self.numbered(&number)
    }

    /// The device of this name.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub(crate) fn named(&self, name: &str) -> Result<Option<Device>> {
        Device::at(&self.sys.join("class/block").join(name))
            .map_err(|error| Error::io("cannot look at a block device", error).with("device", name))
    }

    fn numbered(&self, number: &str) -> Result<Option<Device>> {
        let folder = self.sys.join("dev/block").join(number);
        Device::at(&folder).map_err(|error| Error::io("cannot look at a block device", error).with("device", number))
    }

    /// The device of this identity; `None` where the node has none.
    ///
    /// # Errors
    /// Where that cannot be known, and `FailedPrecondition` where two devices say that they are it.
    pub(crate) fn find(&self, id: &DiskId) -> Result<Option<Device>> {
        let mut found: Option<Device> = None;
        for device in self.all()? {
            // To ask a partition is to read its disk: none is read but the one that is meant.
            if device.is_partition() != id.is_of_partition()
                || of_disk(&device.disk).as_deref() != Some(id.disk())
                || self.identity(&device).as_ref() != Some(id)
            {
                continue;
            }
            if let Some(first) = found {
                return Err(Error::precondition(format!(
                    "{} and {} both say that they are the disk {id}: they are two paths to one disk, or one is a copy of \
                     the other; take one away",
                    self.path(&first).display(),
                    self.path(&device).display()
                )));
            }
            found = Some(device);
        }
        Ok(found)
    }

    /// The identities that more than one disk of the node says it has.
    ///
    /// # Errors
    /// Where the disks cannot be listed.
    pub(crate) fn doubled(&self) -> Result<BTreeSet<String>> {
        let disks = self.all()?.into_iter().filter(|device| !device.is_partition());
        let (mut seen, mut doubled) = (BTreeSet::new(), BTreeSet::new());
        for id in disks.filter_map(|disk| of_disk(&disk.folder)) {
            if let Some(again) = seen.replace(id) {
                doubled.insert(again);
            }
        }
        Ok(doubled)
    }

    /// What is the same about a device at every attach; `None` where it says nothing of the kind, or cannot be asked.
    pub(crate) fn identity(&self, device: &Device) -> Option<DiskId> {
        let disk = of_disk(&device.disk)?;
        let Some((number, start)) = device.partition else { return Some(DiskId(disk)) };
        let whole = Device::at(&device.disk).ok()??;
        let block = whole.attribute("queue/logical_block_size")?.parse().ok()?;
        let (file, _) = self.open_as_named(&whole, OFlags::RDONLY).ok()?;
        Some(DiskId::of_partition(&gpt::guid(&file, block, number, start).ok()??, &disk))
    }

    /// The name of a device in `/dev`, which needs no udev.
    pub(crate) fn path(&self, device: &Device) -> PathBuf {
        self.dev.join(device.name.replace('!', "/"))
    }

    /// Has the kernel ask a disk for its size again, where its kind can be asked.
    pub(crate) fn ask_size(&self, device: &Device) -> Result<Option<Device>> {
        // Where it cannot, or sysfs is read-only, what the kernel knows already is what there is.
        let _ = fs::write(device.disk.join("device/rescan"), "1");
        self.numbered(&device.number)
    }
}

impl Device {
    /// The device of this folder in sysfs; `None` where it is gone.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let folder = match path.canonicalize() {
            Err(error) if error.kind() == NotFound => return Ok(None),
            folder => folder?,
        };
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut device = Self { name, number: String::new(), disk: folder.clone(), folder, size: 0, partition: None };
        let (Some(number), Some(sectors)) = (device.attribute("dev"), device.number_of("size")) else {
            return Ok(None);
        };
        (device.number, device.size) = (number, sectors.saturating_mul(512));
        if let Some(partition) = device.number_of("partition") {
            let start = device.number_of("start").unwrap_or_default().saturating_mul(512);
            device.partition = Some((u32::try_from(partition).unwrap_or_default(), start));
            device.disk = device.folder.parent().map(Path::to_owned).unwrap_or_default();
        }
        Ok(Some(device))
    }

    fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.folder, name)
    }

    fn number_of(&self, name: &str) -> Option<u64> {
        self.attribute(name)?.parse().ok()
    }

    /// Whether it is a partition.
    pub(crate) fn is_partition(&self) -> bool {
        self.partition.is_some()
    }

    /// Whether one of the two, which are of one disk, is all of it.
    fn is_one_whole(&self, other: &Self) -> bool {
        self.folder == self.disk || other.folder == other.disk
    }

    /// That no other machine has it.
    ///
    /// # Errors
    /// Why it may.
    pub(crate) fn refuse_far(&self) -> Result<(), String> {
        identity::refuse_far(&self.disk)
    }

    /// Whether the kernel refuses to write to it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.attribute("ro").is_none_or(|value| value != "0")
    }

    /// Whether it is a medium that somebody may take out.
    pub(crate) fn is_removable(&self) -> bool {
        attribute(&self.disk, "removable").is_none_or(|value| value != "0")
    }

    /// Whether it rotates.
    pub(crate) fn rotates(&self) -> bool {
        attribute(&self.disk, "queue/rotational").is_some_and(|value| value == "1")
    }

    /// Whether it can be written in zones alone.
    pub(crate) fn is_zoned(&self) -> bool {
        attribute(&self.disk, "queue/zoned").is_some_and(|value| value == "host-managed")
    }

    /// What the kernel says of how it is: `running`, `offline`, `live`; nothing of many kinds.
    pub(crate) fn state(&self) -> Option<String> {
        attribute(&self.disk, "device/state")
    }

    /// The devices that have it for a part of theirs: of the device mapper, md, bcache.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn holders(&self) -> io::Result<Vec<String>> {
        names(&self.folder.join("holders"))
    }

    /// Its partitions.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn partitions(&self) -> io::Result<Vec<String>> {
        let mut names = names(&self.folder)?;
        names.retain(|name| self.folder.join(name).join("partition").exists());
        Ok(names)
    }
}

/// The names in a folder; none where it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in opening::entries(folder)? {
        names.extend(entry.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Folders as sysfs has them.
    pub(crate) struct Fake {
        pub(crate) folder: tempfile::TempDir,
    }

    impl Fake {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["sys/class/block", "sys/dev/block", "sys/devices", "dev"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            Self { folder }
        }

        pub(crate) fn kernel(&self) -> Kernel {
            Kernel { sys: self.folder.path().join("sys"), dev: self.folder.path().join("dev") }
        }

        /// Adds a device with these attributes.
        pub(crate) fn device(&self, path: &str, number: &str, attributes: &[(&str, &str)]) {
            let sys = self.folder.path().join("sys");
            let folder = sys.join("devices").join(path);
            let common = [("dev", number), ("size", "204800"), ("ro", "0"), ("removable", "0")];
            for (name, value) in common.iter().chain(attributes) {
                let place = folder.join(name);
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::write(place, format!("{value}\n")).unwrap();
            }
            for link in [sys.join("class/block").join(folder.file_name().unwrap()), sys.join("dev/block").join(number)]
            {
                std::os::unix::fs::symlink(&folder, link).unwrap();
            }
        }

        pub(crate) fn named(&self, name: &str) -> Device {
            self.kernel().all().unwrap().into_iter().find(|device| device.name == name).unwrap()
        }
    }

    #[test]
    fn the_identity_is_what_the_hardware_says() {
        let fake = Fake::new();
        for (number, name, place, said, wanted) in [
            ("8:0", "sda", "device/wwid", "naa.5000c500a1b2c3d4", Some("wwid:naa.5000c500a1b2c3d4")),
            ("8:16", "sdb", "device/wwid", "t10.ATA     DISK      S1", Some("wwid:t10.ATA DISK S1")),
            ("259:0", "nvme0n1", "wwid", "eui.0025385b71b00001", Some("wwid:eui.0025385b71b00001")),
            ("254:0", "vda", "serial", "data-1", Some("serial:data-1")),
            ("179:0", "mmcblk0", "device/cid", "1501004d4d43", Some("cid:1501004d4d43")),
            ("8:32", "sdc", "device/wwid", "naa.0000000000000000", None),
            ("254:16", "vdb", "serial", "", None),
            ("7:0", "loop0", "loop/backing_file", "/srv/a", None),
        ] {
            fake.device(name, number, &[(place, said)]);
            let found = fake.kernel().identity(&fake.named(name));
            assert_eq!(found.map(|id| id.0).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn a_disk_that_is_there_twice_is_not_found_but_refused() {
        let fake = Fake::new();
        let id = DiskId("serial:a".into());
        assert_eq!(fake.kernel().find(&id).unwrap(), None);
        fake.device("vda", "254:0", &[("serial", "a")]);
        assert_eq!(fake.kernel().find(&id).unwrap().unwrap().name, "vda");
        fake.device("vdb", "254:16", &[("serial", "a")]);
        let error = fake.kernel().find(&id).unwrap_err().to_string();
        assert!(error.contains("/vda and ") && error.contains("/vdb both say"), "{error}");
    }

    #[test]
    fn partitions_and_holders_are_seen() {
        let fake = Fake::new();
        fake.device("sda", "8:0", &[("queue/rotational", "1"), ("device/state", "running")]);
        fake.device("sda/sda1", "8:1", &[("partition", "1"), ("start", "2048"), ("holders/dm-0/dev", "253:0")]);
        let (disk, partition) = (fake.named("sda"), fake.named("sda1"));
        assert_eq!((disk.partitions().unwrap(), disk.holders().unwrap()), (vec!["sda1".to_owned()], Vec::new()));
        assert_eq!((partition.holders().unwrap(), partition.is_partition()), (vec!["dm-0".to_owned()], true));
        assert!(disk.rotates() && partition.rotates() && !partition.is_removable());
        assert_eq!((disk.size, disk.state().as_deref()), (100 << 20, Some("running")));
    }
}
