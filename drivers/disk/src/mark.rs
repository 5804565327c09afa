//! The mark on a disk that is a volume's and was never used by it.
//!
//! Until a workload has written to a disk nothing else would tell it from an empty one: another backend, another node that
//! the disk was carried to, or this node after it was installed anew could hand it out a second time. The mark lies behind
//! the place where the host looks before it formats, and is taken away when the volume is used first: what the workload gets
//! is blank.
//!
//! A disk whose volume was deleted gets one too, which says that it is being wiped: it is written first and taken away last.
//! A disk without it is not wiped any further, whatever a file says: it may be somebody else's by now.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dunnage_driver_api::{Generation, InstanceId, VolumeKey};
use serde::{Deserialize, Serialize};

use crate::content;

/// Where it lies.
pub(crate) const PLACE: u64 = 3 << 20;
/// How long it is: what every disk writes whole.
pub(crate) const LENGTH: usize = 4096;

const VERSION: u32 = 1;
const START: &[u8] = b"{\"dunnage\":\"disk\",";

/// Whose a disk is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    dunnage: Kind,
    version: u32,
    /// The instance of the backend.
    pub(crate) instance: InstanceId,
    /// The volume.
    pub(crate) volume: VolumeKey,
    /// Which of those that bore the key.
    pub(crate) generation: Generation,
    /// Whether it was deleted, and the disk is being wiped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) wiping: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Disk,
}

impl Mark {
    /// The mark of a volume.
    pub(crate) fn new(instance: &InstanceId, volume: &VolumeKey, generation: &Generation) -> Self {
        Self {
            dunnage: Kind::Disk,
            version: VERSION,
            instance: instance.clone(),
            volume: volume.clone(),
            generation: generation.clone(),
            wiping: false,
        }
    }

    /// The same of a volume that was deleted.
    #[must_use]
    pub(crate) fn being_wiped(mut self) -> Self {
        self.wiping = true;
        self
    }

    /// Whether it is that of a volume which is there and was not used yet.
    pub(crate) fn is_unused(&self, volume: &VolumeKey, generation: &Generation) -> bool {
        self.volume == *volume && self.generation == *generation && !self.wiping
    }

    /// The mark in the bytes of its place; `None` where they are something else, or of a later release.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = bytes.split(|byte| *byte == 0).next().filter(|text| text.starts_with(START))?;
        let rest = &bytes[text.len()..];
        let mark: Self = serde_json::from_slice(text).ok()?;
        (mark.version == VERSION && rest.iter().all(|byte| *byte == 0)).then_some(mark)
    }

    /// The mark on a disk, whatever else is there, and whatever is cached of the disk.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    pub(crate) fn read(disk: &File) -> io::Result<Option<Self>> {
        content::forget_cached(disk)?;
        let mut bytes = vec![0; LENGTH];
        disk.read_exact_at(&mut bytes, PLACE)?;
        Ok(Self::parse(&bytes))
    }

    /// Writes it, durably, and reads it from the disk again.
    ///
    /// # Errors
    /// Where the disk does not take it, or has something else there.
    pub(crate) fn write(&self, disk: &File) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        bytes.resize(LENGTH, 0);
        disk.write_all_at(&bytes, PLACE)?;
        disk.sync_all()?;
        match Self::read(disk)? {
            Some(mark) if mark == *self => Ok(()),
            _ => Err(io::Error::other("what was written does not read the same: does another machine have this disk?")),
        }
    }

    /// Takes whatever mark there is away, durably.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub(crate) fn erase(disk: &File) -> io::Result<()> {
        disk.write_all_at(&[0; LENGTH], PLACE)?;
        disk.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark::new(&"aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(), &VolumeKey::of_name("pvc-1"), &"abc".parse().unwrap())
    }

    #[test]
    fn the_form_is_frozen() {
        let text = r#"{"dunnage":"disk","version":1,"instance":"aaaaaaaaaaaaaaaaaaaaaaaaaa","volume":"pvc-1","generation":"abc"}"#;
        assert_eq!(serde_json::to_string(&mark()).unwrap(), text);
        let wiping = serde_json::to_string(&mark().being_wiped()).unwrap();
        assert_eq!(wiping, text.replace('}', ",\"wiping\":true}"));
    }

    #[test]
    fn one_of_a_disk_that_is_being_wiped_is_not_that_of_a_volume() {
        let (volume, generation) = (VolumeKey::of_name("pvc-1"), "abc".parse().unwrap());
        assert!(mark().is_unused(&volume, &generation) && !mark().being_wiped().is_unused(&volume, &generation));
        assert!(!mark().is_unused(&VolumeKey::of_name("pvc-2"), &generation));
    }

    #[test]
    fn it_is_read_back_and_nothing_else_is_taken_for_it() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(16 << 20).unwrap();
        assert_eq!(Mark::read(&disk).unwrap(), None);
        mark().write(&disk).unwrap();
        assert_eq!(Mark::read(&disk).unwrap(), Some(mark()));
        disk.write_all_at(&[1], PLACE + LENGTH as u64 - 1).unwrap();
        assert_eq!(Mark::read(&disk).unwrap(), None, "somebody wrote there");
        Mark::erase(&disk).unwrap();
        assert_eq!(Mark::read(&disk).unwrap(), None);
        let later = serde_json::to_string(&mark()).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(Mark::parse(later.as_bytes()), None);
    }
}
