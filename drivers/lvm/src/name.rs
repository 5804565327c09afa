//! What logical volumes and their devices are called.
//!
//! The kernel allows 127 bytes for the name of a device, in which LVM doubles every hyphen of the group and of the volume;
//! LVM keeps some words for itself (`_tdata`, `_rimage`, …), wherever they stand in a name. A key that would break a rule
//! is in the name by its digest. What a volume is is told by its tags alone, never by its name.

use std::collections::BTreeMap;

use dunnage_driver_api::{Fingerprint, SnapshotKey, VolumeKey};

/// What the kernel allows for the name of a device.
const DEVICE: usize = 127;
/// The longest name of a volume of ours in a device, with its hyphens doubled, and what LVM adds for the parts of a RAID.
const LONGEST: usize = "wipe--vol--".len() + VolumeKey::MAX_LENGTH + HYPHENS + "_rimage_99".len();
/// How many hyphens a key may have that is in the name as it is.
const HYPHENS: usize = 12;

/// The name of a volume.
pub(crate) fn of_volume(key: &VolumeKey) -> String {
    of("vol", key.as_str())
}

/// The name of a snapshot.
pub(crate) fn of_snapshot(key: &SnapshotKey) -> String {
    of("snap", key.as_str())
}

/// The name of what holds extents for this volume until they are wiped.
pub(crate) fn of_wiped(volume: &str) -> String {
    format!("wipe-{volume}")
}

fn of(prefix: &str, key: &str) -> String {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
    if key.chars().all(plain) && key.matches('-').count() <= HYPHENS {
        return format!("{prefix}-{key}");
    }
    // No key as it is has this sign before it.
    format!("{prefix}+{}", Fingerprint::of(&BTreeMap::from([("key".into(), key.into())])))
}

/// The name of the kernel's device of a logical volume.
pub(crate) fn of_device(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// Which of these logical volumes the kernel's device of this name belongs to: it is its own, a layer of it (`-tpool`), or
/// one of its parts (`_rimage_0`, `_tdata`).
pub(crate) fn owner_of<'a>(group: &str, device: &str, volumes: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_of = |volume: &&str| {
        let rest = device.strip_prefix(&of_device(group, volume));
        // A hyphen of a name is two.
        rest.is_some_and(|rest| match rest.strip_prefix('-') {
            Some(layer) => !layer.starts_with('-'),
            None => rest.is_empty() || rest.starts_with('_'),
        })
    };
    // Where the admin has a pool `a` and another `a_b`, what is of the second begins like what is of the first.
    volumes.filter(is_of).max_by_key(|volume| volume.len())
}

/// Whether a group can have this name.
pub(crate) fn check_group(name: &str) -> Result<(), String> {
    check("volume group", name)?;
    let longest = DEVICE - 1 - LONGEST;
    let length = name.replace('-', "--").len();
    if length <= longest {
        return Ok(());
    }
    Err(format!("the volume group's name {name:?} is too long: {longest} bytes are allowed, each hyphen counted twice"))
}

/// Whether a pool can have this name: none that a volume of ours may get.
pub(crate) fn check_pool(name: &str) -> Result<(), String> {
    check("thin pool", name)?;
    let ours = ["vol", "snap", "wipe"].iter().any(|prefix| name.starts_with(&format!("{prefix}-")));
    if ours { Err(format!("a thin pool cannot be named {name:?}: volumes have such names")) } else { Ok(()) }
}

fn check(what: &str, name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '.' | '-');
    if name.is_empty() || name.starts_with('-') || name == "." || name == ".." || !name.chars().all(allowed) {
        return Err(format!("{name:?} is no name of a {what}: use letters, digits and + _ . -"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_a_provisioner_gives_can_be_read_in_lvs() {
        let key = VolumeKey::of_name("pvc-0f8cb9d5-1c70-4e4b-8f2f-6d3f1a2b3c4d");
        assert_eq!(of_volume(&key), "vol-pvc-0f8cb9d5-1c70-4e4b-8f2f-6d3f1a2b3c4d");
        assert_eq!(of_snapshot(&SnapshotKey::of_name("snapshot-1")), "snap-snapshot-1");
        assert_eq!(of_device("my-vg", "vol-a"), "my--vg-vol--a");
    }

    #[test]
    fn a_device_belongs_to_the_volume_whose_part_or_layer_it_is() {
        let owner = |device: &str| owner_of("my-vg", device, ["a", "a-b", "a_b", "vol-a"].into_iter());
        for (device, volume) in [
            ("my--vg-a", "a"),
            ("my--vg-a-tpool", "a"),
            ("my--vg-a_tdata", "a"),
            ("my--vg-a--b", "a-b"),
            ("my--vg-a_b-tpool", "a_b"),
            ("my--vg-vol--a_rimage_0", "vol-a"),
            ("my--vg-vol--a-real", "vol-a"),
        ] {
            assert_eq!(owner(device), Some(volume), "{device}");
        }
        for device in ["my--vg-b", "my--vg-vol--ab", "vg-a", "my--vg-vol--a--b"] {
            assert_eq!(owner(device), None, "{device}");
        }
    }

    #[test]
    fn words_that_lvm_keeps_for_itself_are_in_no_name() {
        for name in ["x_tdata", "a_rimage_0", "a_pmspare", "_mlog", "A_vorigin"] {
            let name = of_volume(&VolumeKey::of_name(name));
            assert!(!name.contains('_'), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_name_fits_into_a_device_of_every_group(name in "[a-z-]{0,60}|\\PC{0,128}", group in "[a-z-]{1,40}") {
            prop_assume!(check_group(&group).is_ok());
            let device = of_device(&group, &of_wiped(&of_volume(&VolumeKey::of_name(&name))));
            prop_assert!(device.len() + "_rimage_99".len() <= DEVICE, "{}", device);
        }

        #[test]
        fn unlike_keys_have_unlike_names(a in "[a-z_+.-]{1,60}", b in "[a-z_+.-]{1,60}") {
            let (a, b) = (VolumeKey::of_name(&a), VolumeKey::of_name(&b));
            prop_assert_eq!(a == b, of_volume(&a) == of_volume(&b));
        }
    }
}
