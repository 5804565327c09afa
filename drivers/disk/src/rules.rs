//! Which disks the rules of the configuration mean, and why one of them cannot become a volume.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use dunnage_driver_api::{Bytes, Error, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::config::Disk;
use crate::content::{self, Content};
use crate::identity::DiskId;
use crate::kernel::{Device, Kernel};
use crate::mark::Mark;

/// What a disk must have at the least: all places that are read lie in it, and every file system but XFS and btrfs fits.
const LEAST: Bytes = Bytes::new(16 << 20);

/// A disk or a partition that a pattern of the configuration names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) device: Device,
    /// What it is, or why it can never become a volume as it is.
    pub(crate) fit: Result<DiskId, String>,
}

/// Those that the patterns name now, each once. Looks at what the kernel says, and at no byte of a disk.
///
/// # Errors
/// Where the devices of the node cannot be listed.
pub(crate) fn named(config: &Disk, kernel: &Kernel) -> Result<Vec<Named>> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let doubled = kernel.doubled()?;
    for pattern in &config.devices {
        let paths =
            glob::glob(pattern).map_err(|error| Error::invalid(format!("{pattern:?} is no pattern: {}", error.msg)))?;
        // A folder that cannot be read has no disks for us.
        for path in paths.flatten() {
            let Some(device) = kernel.behind(&path)? else { continue };
            if seen.insert(device.name.clone()) {
                let fit = fit(config, kernel, &device, &doubled);
                found.push(Named { device, fit });
            }
        }
    }
    Ok(found)
}

fn fit(config: &Disk, kernel: &Kernel, device: &Device, doubled: &BTreeSet<String>) -> Result<DiskId, String> {
    if device.size < LEAST.get() {
        return Err(format!("it has {}, and {LEAST} is the least", Bytes::new(device.size)));
    }
    if !config.size.holds(device.size) {
        return Err(format!("it has {}, which is not in `size`", Bytes::new(device.size)));
    }
    if let Some(wanted) = config.rotational.filter(|wanted| *wanted != device.rotates()) {
        return Err(if wanted { "it does not rotate" } else { "it rotates" }.into());
    }
    for (is_so, why) in [
        (device.is_removable(), "it is removable"),
        (device.is_read_only(), "it is read-only"),
        (device.is_zoned(), "it can be written in zones alone"),
    ] {
        if is_so {
            return Err(why.into());
        }
    }
    device.refuse_far()?;
    if device.is_partition() && !config.partitions {
        return Err("it is a partition, and `partitions` is not set".into());
    }
    let parts = if device.is_partition() { Ok(Vec::new()) } else { device.partitions() };
    let parts = parts.map_err(|error| format!("its partitions cannot be read: {error}"))?;
    if !parts.is_empty() {
        return Err(format!("it has partitions ({})", parts.join(", ")));
    }
    let id = kernel.identity(device).ok_or_else(|| {
        let what = if device.is_partition() {
            "its partition has no GUID of its own, or another type than Linux filesystem data, or its disk"
        } else {
            "it"
        };
        format!("{what} has no WWID and no serial number by which it could be known again")
    })?;
    if doubled.contains(id.disk()) {
        return Err(format!("another disk of this node has the same identity ({id}): are they two paths to one?"));
    }
    Ok(id)
}

/// That a disk is in use by nobody, as far as can be seen without opening it for our own, which would be in the way of others.
///
/// # Errors
/// Who has it.
pub(crate) fn refuse_held(kernel: &Kernel, device: &Device) -> Result<(), String> {
    let holders = device.holders().map_err(|error| format!("who has it cannot be read: {error}"))?;
    if !holders.is_empty() {
        return Err(format!("it is a part of {}", holders.join(", ")));
    }
    match kernel.exported_by(device) {
        Ok(None) => Ok(()),
        Ok(Some(subsystem)) => Err(format!("the NVMe target hands it out as {subsystem}")),
        Err(error) => Err(error.report()),
    }
}

/// That a disk is in use by nobody and carries nothing. `remains` tells of a mark whether it is what a create of ours left.
///
/// # Errors
/// Why it cannot become a volume now.
pub(crate) fn refuse_used(
    kernel: &Kernel,
    id: &DiskId,
    device: &Device,
    remains: impl FnOnce(&Mark) -> bool,
) -> Result<(), String> {
    refuse_held(kernel, device)?;
    // Not exclusively, since somebody may be about to mount what carries something.
    let (file, now) = kernel.open(id, device, OFlags::RDONLY).map_err(cannot)?;
    refuse_carrying(&file, now.size, remains)
}

/// That a disk carries nothing.
///
/// # Errors
/// What it carries.
pub(crate) fn refuse_carrying(file: &File, size: u64, remains: impl FnOnce(&Mark) -> bool) -> Result<(), String> {
    match content::look(file, size).map_err(cannot)? {
        Content::Blank => Ok(()),
        Content::Marked(mark) if remains(&mark) => Ok(()),
        Content::Marked(mark) => Err(marked(&mark)),
        Content::Something(place) => Err(format!(
            "it carries something, the first byte at {place}: an empty disk is zero in its first and last MiBs"
        )),
    }
}

/// Why a disk with a mark is not free.
pub(crate) fn marked(mark: &Mark) -> String {
    let what = if mark.wiping { "is being wiped, and was" } else { "is a volume that was not used yet:" };
    format!("it {what} {} of instance {}", mark.volume, mark.instance)
}

/// Why a disk cannot be opened or read.
pub(crate) fn cannot(error: io::Error) -> String {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => "it is in use: mounted, swapped to, or open by a program that wants it for its own".into(),
        Some(Errno::WOULDBLOCK) => "it is in use: a program has a lock on it (flock)".into(),
        Some(Errno::NODEV) => "it has just gone, or another disk has come in its place".into(),
        _ => format!("it cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Fake;

    fn config(keys: &str) -> Disk {
        serde_json::from_str(&format!(r#"{{"root": "/srv", "devices": ["/dev/*"]{keys}}}"#)).unwrap()
    }

    fn why(fake: &Fake, name: &str, keys: &str) -> String {
        let kernel = fake.kernel();
        let doubled = kernel.doubled().unwrap();
        fit(&config(keys), &kernel, &fake.named(name), &doubled).err().unwrap_or_default()
    }

    #[test]
    fn what_a_rule_leaves_out_is_never_a_volume() {
        let fake = Fake::new();
        fake.device("vda", "254:0", &[("serial", "a"), ("queue/rotational", "1")]);
        assert_eq!(why(&fake, "vda", ""), "");
        for (keys, said) in [
            (r#", "size": {"min": "101MiB"}"#, "not in `size`"),
            (r#", "size": {"max": "99MiB"}"#, "not in `size`"),
            (r#", "rotational": false"#, "it rotates"),
        ] {
            assert!(why(&fake, "vda", keys).contains(said), "{keys}");
        }
        assert_eq!(why(&fake, "vda", r#", "size": {"min": "100MiB", "max": "100MiB"}, "rotational": true"#), "");
    }

    #[test]
    fn what_is_not_ours_to_take_is_left_alone() {
        let fake = Fake::new();
        for (number, name, attributes, said) in [
            ("254:0", "vda", &[("serial", "a"), ("removable", "1")][..], "removable"),
            ("254:16", "vdb", &[("serial", "b"), ("ro", "1")], "read-only"),
            ("254:32", "vdc", &[("serial", "c"), ("queue/zoned", "host-managed")], "zones"),
            ("254:48", "vdd", &[("serial", "d"), ("size", "2048")], "the least"),
            ("254:64", "vde", &[], "no WWID and no serial"),
            ("254:80", "vdf", &[("serial", "f")], "has partitions (vdf1)"),
            ("254:96", "vdg", &[("serial", "g")], "same identity (serial:g)"),
            ("254:112", "vdh", &[("serial", "g")], "same identity (serial:g)"),
        ] {
            fake.device(name, number, attributes);
            if name == "vdf" {
                fake.device("vdf/vdf1", "254:81", &[("partition", "1"), ("start", "2048")]);
            }
            if name != "vdg" {
                assert!(why(&fake, name, "").contains(said), "{name}: {}", why(&fake, name, ""));
            }
        }
        assert!(why(&fake, "vdg", "").contains("same identity"), "{}", why(&fake, "vdg", ""));
        assert!(why(&fake, "vdf1", "").contains("`partitions` is not set"), "{}", why(&fake, "vdf1", ""));
        let partitions = why(&fake, "vdf1", r#", "partitions": true"#);
        assert!(partitions.contains("has no GUID"), "{partitions}");
    }
}
