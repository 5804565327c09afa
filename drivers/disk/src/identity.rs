//! What is the same about a disk wherever it is, and what says that other machines may have it too.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What is the same about a disk wherever and whenever it is attached: what its hardware says of it. That of a partition is
/// its GUID and the identity of its disk, since a copy of a disk has the same GUIDs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DiskId(pub(crate) String);

impl DiskId {
    const PARTITION: &str = "part:";

    /// That of the partition with this GUID, on a disk of this identity.
    pub(crate) fn of_partition(guid: &str, disk: &str) -> Self {
        Self(format!("{}{guid}@{disk}", Self::PARTITION))
    }

    pub(crate) fn is_of_partition(&self) -> bool {
        self.0.starts_with(Self::PARTITION)
    }

    /// That of the disk, which a partition has in its own.
    pub(crate) fn disk(&self) -> &str {
        match self.0.split_once('@') {
            Some((_, disk)) if self.is_of_partition() => disk,
            _ => &self.0,
        }
    }

    /// Whether bytes of the one may be bytes of the other: they are the same, or one is the disk that the other lies on.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self == other || self.disk() == other.disk() && !(self.is_of_partition() && other.is_of_partition())
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the hardware of a disk says of it: an identity that is unique in the world and the serial number beside it, or else
/// the serial number alone. Nothing where a hypervisor has made it of the slot that the disk is in.
pub(crate) fn of_disk(disk: &Path) -> Option<String> {
    let serial = serial(disk);
    for (place, kind) in [("wwid", "wwid"), ("device/wwid", "wwid"), ("device/cid", "cid")] {
        let Some(said) = attribute(disk, place).and_then(|said| number(&said)) else { continue };
        if is_of_slot(&said, serial.as_deref()) {
            return None;
        }
        return Some(match serial {
            Some(serial) if kind == "wwid" && !said.contains(&serial) => format!("{kind}:{said} serial:{serial}"),
            _ => format!("{kind}:{said}"),
        });
    }
    Some(format!("serial:{}", attribute(disk, "serial").and_then(|said| number(&said))?))
}

/// The serial number that SCSI and NVMe disks have beside a WWID.
fn serial(disk: &Path) -> Option<String> {
    // The page of SCSI has a head of four bytes.
    let page = fs::read(disk.join("device/vpd_pg80")).ok().and_then(|page| Some(text(page.get(4..)?)));
    page.or_else(|| attribute(disk, "device/serial")).and_then(|said| number(&said))
}

/// A number with single blanks, where it is one: what is not set is zeros.
fn number(said: &str) -> Option<String> {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let number = words.split_once('.').map_or(words.as_str(), |(_, number)| number);
    let is_set = number.chars().any(|c| c.is_ascii_graphic() && !matches!(c, '0' | '-' | '.'));
    (is_set && words.len() <= 512 && words.chars().all(|c| c == ' ' || c.is_ascii_graphic())).then_some(words)
}

/// QEMU names a disk that was given no serial number by its place: another disk in that place has the same name.
fn is_of_slot(wwid: &str, serial: Option<&str>) -> bool {
    if !wwid.starts_with("t10.") || !wwid.contains("QEMU") {
        return false;
    }
    serial.is_none_or(|serial| serial.starts_with("QM0"))
}

/// Why other machines may have a disk too, or a bridge between speaks for it; the way to it says so.
pub(crate) fn refuse_far(disk: &Path) -> Result<(), String> {
    let on_the_way = |start: &str| {
        disk.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    for (start, what) in [("usb", "USB"), ("session", "iSCSI"), ("rport-", "Fibre Channel")] {
        if on_the_way(start) {
            return Err(match start {
                "usb" => "it is behind USB, where what it says of itself may be the bridge's".into(),
                _ => format!("it comes by {what}, and other machines may have it too"),
            });
        }
    }
    // That of a controller, or of each that a subsystem has.
    let mut ways: Vec<_> = attribute(disk, "device/transport").into_iter().collect();
    for entry in fs::read_dir(disk.join("device")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("nvme") {
            ways.extend(attribute(&entry.path(), "transport"));
        }
    }
    match ways.iter().find(|way| *way != "pcie") {
        Some(way) => Err(format!("it comes by NVMe over {way}, and other machines may have it too")),
        None => Ok(()),
    }
}

/// What sysfs says in this place of a folder.
pub(crate) fn attribute(folder: &Path, name: &str) -> Option<String> {
    fs::read(folder.join(name)).ok().map(|bytes| text(&bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches(['\0', '\n', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_overlaps_itself_and_its_partitions_and_they_not_each_other() {
        let (disk, other) = (DiskId("wwid:a".into()), DiskId("wwid:b".into()));
        let (one, two) = (DiskId::of_partition("g1", "wwid:a"), DiskId::of_partition("g2", "wwid:a"));
        for (a, b, wanted) in [
            (&disk, &disk, true),
            (&disk, &one, true),
            (&one, &disk, true),
            (&one, &one, true),
            (&one, &two, false),
            (&other, &one, false),
            (&other, &disk, false),
        ] {
            assert_eq!(a.overlaps(b), wanted, "{a} and {b}");
        }
    }

    fn disk(path: &str, attributes: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join(path);
        fs::create_dir_all(&disk).unwrap();
        for (name, value) in attributes {
            fs::create_dir_all(disk.join(name).parent().unwrap()).unwrap();
            fs::write(disk.join(name), value).unwrap();
        }
        (folder, disk)
    }

    #[test]
    fn a_serial_number_is_part_of_the_identity_and_a_slot_is_none() {
        for (attributes, wanted) in [
            (&[("device/wwid", "naa.5"), ("device/vpd_pg80", "\0\u{1}\0\u{2}S1  ")][..], Some("wwid:naa.5 serial:S1")),
            (&[("wwid", "eui.5"), ("device/serial", "S2")], Some("wwid:eui.5 serial:S2")),
            (&[("device/wwid", "t10.ATA DISK S3"), ("device/vpd_pg80", "1234S3")], Some("wwid:t10.ATA DISK S3")),
            (&[("device/wwid", "t10.QEMU QEMU HARDDISK drive-scsi0-0-0-0")], None),
            (&[("device/wwid", "t10.ATA QEMU HARDDISK QM00001"), ("device/vpd_pg80", "1234QM00001")], None),
            (
                &[("device/wwid", "t10.QEMU QEMU HARDDISK data"), ("device/vpd_pg80", "1234data")],
                Some("wwid:t10.QEMU QEMU HARDDISK data"),
            ),
        ] {
            let (_folder, disk) = disk("sda", attributes);
            assert_eq!(of_disk(&disk).as_deref(), wanted, "{attributes:?}");
        }
    }

    #[test]
    fn what_other_machines_may_have_is_refused_by_the_way_to_it() {
        for (path, attributes, said) in [
            ("pci/usb1/1-1/host2/block/sda", &[][..], "USB"),
            ("platform/host3/session1/target3:0:0/block/sda", &[], "iSCSI"),
            ("pci/host1/rport-1:0-2/target/block/sda", &[], "Fibre Channel"),
            ("nvme0n1", &[("device/transport", "tcp\n")], "NVMe over tcp"),
            ("nvme1n1", &[("device/nvme0/transport", "pcie"), ("device/nvme1/transport", "rdma")], "NVMe over rdma"),
        ] {
            let (_folder, disk) = disk(path, attributes);
            let error = refuse_far(&disk).unwrap_err();
            assert!(error.contains(said), "{path}: {error}");
        }
        for (path, attributes) in [
            ("pci/ata1/host0/target0:0:0/block/sda", &[][..]),
            ("nvme0n1", &[("device/nvme0/transport", "pcie")]),
            ("nvme1n1", &[("device/transport", "pcie")]),
        ] {
            let (_folder, disk) = disk(path, attributes);
            assert_eq!(refuse_far(&disk), Ok(()), "{path}");
        }
    }
}
