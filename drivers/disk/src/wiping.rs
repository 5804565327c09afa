//! The disks whose volumes were deleted, and which are not wiped yet: a file for each, `<root>/wiping/<name>`.
//!
//! The file is written, durably, before the record of the volume is removed. Both together are a delete that was cut off:
//! nobody gets the volume then, nothing is wiped, and the next delete ends it. The file alone has the disk wiped, by this
//! process or a later one, and goes when that is done.
//!
//! What a file says is what somebody knew once: a root is restored from a backup, and a disk is pulled and used elsewhere.
//! So nothing is wiped because of a file alone: the disk must bear the mark that wiping has begun ([`Mark::being_wiped`]), or
//! carry what the volume is known to have left.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Generation, InstanceId, Result, Volume, VolumeKey};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::config::Wipe;
use crate::identity::DiskId;
use crate::mark::Mark;

const VERSION: u32 = 1;
const LARGEST: u64 = 16 << 10;

/// A disk that is to be wiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wiping {
    version: u32,
    /// The disk.
    pub(crate) disk: DiskId,
    /// How large the volume was, in bytes.
    pub(crate) size: u64,
    /// The volume that it was.
    pub(crate) volume: VolumeKey,
    /// Which of those that bore the key.
    pub(crate) generation: Generation,
    /// What is to be done, as the configuration said when the volume was deleted.
    pub(crate) wipe: Wipe,
    /// The file system that the volume had, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    /// How far it is.
    pub(crate) stage: Stage,
    /// Up to where it is wiped.
    #[serde(default)]
    pub(crate) done: u64,
}

/// How far the wiping of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// The disk is to be wiped, if what it carries is the volume's.
    Named,
    /// It bears our mark, and is being wiped.
    Begun,
    /// There is nothing on it but our mark, which is taken away.
    Ended,
}

impl Wiping {
    /// That of the disk of this volume.
    pub(crate) fn new(disk: DiskId, volume: &Volume, wipe: Wipe) -> Self {
        Self {
            version: VERSION,
            disk,
            size: volume.capacity.get(),
            volume: volume.key.clone(),
            generation: volume.generation.clone(),
            wipe,
            content: None,
            stage: Stage::Named,
            done: 0,
        }
    }

    /// The mark that the disk bears while it is wiped.
    pub(crate) fn mark(&self, instance: &InstanceId) -> Mark {
        Mark::new(instance, &self.volume, &self.generation).being_wiped()
    }
}

/// All of them.
pub(crate) struct Wipings {
    folder: Folder,
    all: Mutex<BTreeMap<DiskId, Wiping>>,
}

/// The name of the file: one that every file system takes.
fn name(disk: &DiskId) -> VolumeKey {
    VolumeKey::of_name(&disk.0)
}

fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn read(folder: &Folder, name: &OsStr) -> Result<Wiping> {
    let mut text = Vec::new();
    folder.read(name, &mut text, LARGEST).map_err(folder.failed("read", name))?;
    let broken = |why: String| {
        let place = folder.path().join(name);
        Error::precondition(format!(
            "{} does not tell which disk is to be wiped: {why}; restore it from a backup, or remove it and wipe the disk by hand",
            place.display()
        ))
    };
    let wiping: Wiping = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    if wiping.version != VERSION {
        return Err(broken(format!("it has version {}, this release knows {VERSION}", wiping.version)));
    }
    Ok(wiping)
}

impl Wipings {
    /// Those in this folder.
    ///
    /// # Errors
    /// Where one cannot be read: its disk would be taken for one that is nobody's.
    pub(crate) fn open(folder: Folder) -> Result<Self> {
        folder.sync().map_err(folder.failed("sync", ""))?;
        let all = Mutex::new(Self::read(&folder)?);
        // What a cut-off write has left.
        for entry in folder.entries().map_err(folder.failed("list", ""))? {
            let (entry, _) = entry.map_err(folder.failed("list", ""))?;
            if is_unfinished(&entry) {
                folder.unlink(&entry).map_err(folder.failed("remove", &entry))?;
            }
        }
        Ok(Self { folder, all })
    }

    /// What is in such a folder, of which nothing is changed.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub(crate) fn read(folder: &Folder) -> Result<BTreeMap<DiskId, Wiping>> {
        let mut all = BTreeMap::new();
        for entry in folder.entries().map_err(folder.failed("list", ""))? {
            let (entry, _) = entry.map_err(folder.failed("list", ""))?;
            if !is_unfinished(&entry) {
                let wiping = read(folder, &entry)?;
                all.insert(wiping.disk.clone(), wiping);
            }
        }
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiskId, Wiping>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of them is of this disk, of the disk that it lies on, or of a part of it.
    pub(crate) fn overlap(&self, disk: &DiskId) -> bool {
        self.lock().keys().any(|other| other.overlaps(disk))
    }

    /// That of a disk, as its file says now: an admin may have removed it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn read_again(&self, disk: &DiskId) -> Result<Option<Wiping>> {
        let (name, mut all) = (name(disk), self.lock());
        match self.folder.open(name.as_str(), OFlags::PATH, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                all.remove(disk);
                return Ok(None);
            }
            Err(error) => return Err(self.folder.failed("read", name.as_str())(error)),
            Ok(_) => {}
        }
        let wiping = read(&self.folder, OsStr::new(name.as_str()))?;
        all.insert(disk.clone(), wiping.clone());
        Ok(Some(wiping).filter(|wiping| wiping.disk == *disk))
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<Wiping> {
        self.lock().values().cloned().collect()
    }

    /// That of the disk which was this volume.
    pub(crate) fn of_volume(&self, volume: &VolumeKey, generation: &Generation) -> Option<Wiping> {
        self.lock().values().find(|wiping| wiping.volume == *volume && wiping.generation == *generation).cloned()
    }

    /// Writes one, over that of the same disk; durable when it returns.
    ///
    /// # Errors
    /// Where it cannot be written: the one that was there is there still, or the new one is.
    pub(crate) fn put(&self, wiping: &Wiping) -> Result<()> {
        let name = name(&wiping.disk);
        let text = serde_json::to_vec(wiping)
            .map_err(|error| Error::internal("cannot write which disk is to be wiped").caused_by(error))?;
        let mut all = self.lock();
        let temporary = format!(".{name}");
        let folder = &self.folder;
        let written = folder.write(&temporary, &text).and_then(|()| folder.rename(&temporary, folder, name.as_str()));
        // From here on it may be there.
        all.insert(wiping.disk.clone(), wiping.clone());
        written.and_then(|()| folder.sync()).map_err(folder.failed("write", name.as_str()))
    }

    /// Removes that of a disk, durably.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub(crate) fn remove(&self, disk: &DiskId) -> Result<()> {
        let (name, mut all) = (name(disk), self.lock());
        let failed = |error| self.folder.failed("remove", name.as_str())(error);
        match self.folder.unlink(name.as_str()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => self.folder.sync().map_err(failed)?,
        }
        all.remove(disk);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Bytes;

    use super::*;

    fn wiping() -> Wiping {
        let volume = Volume::new(VolumeKey::of_name("pvc-1"), "abc".parse().unwrap(), Bytes::new(7 << 20));
        Wiping::new(DiskId("wwid:naa.5000".into()), &volume, Wipe::Zero)
    }

    #[test]
    fn the_form_is_frozen() {
        let text = r#"{"version":1,"disk":"wwid:naa.5000","size":7340032,"volume":"pvc-1","generation":"abc","wipe":"zero","stage":"named","done":0}"#;
        assert_eq!(serde_json::to_string(&wiping()).unwrap(), text);
    }

    #[test]
    fn they_are_there_after_a_restart_and_a_broken_one_keeps_the_store_shut() {
        let root = tempfile::tempdir().unwrap();
        let open = || Wipings::open(Folder::at(root.path()).unwrap());
        let wipings = open().unwrap();
        let mut wiping = wiping();
        wipings.put(&wiping).unwrap();
        (wiping.stage, wiping.done) = (Stage::Begun, 7);
        wipings.put(&wiping).unwrap();
        std::fs::write(root.path().join(".half"), "{").unwrap();
        let wipings = open().unwrap();
        assert_eq!(wipings.all(), [wiping.clone()]);
        assert_eq!(wipings.of_volume(&wiping.volume, &wiping.generation).as_ref(), Some(&wiping));
        wipings.remove(&wiping.disk).unwrap();
        wipings.remove(&wiping.disk).unwrap();
        assert_eq!((wipings.all(), open().unwrap().all()), (Vec::new(), Vec::new()));
        std::fs::write(root.path().join("x"), "{\"version\":1}").unwrap();
        assert!(open().err().unwrap().to_string().contains("does not tell which disk"));
    }

    #[test]
    fn one_that_an_admin_removes_is_gone_at_once() {
        let root = tempfile::tempdir().unwrap();
        let wipings = Wipings::open(Folder::at(root.path()).unwrap()).unwrap();
        let wiping = wiping();
        wipings.put(&wiping).unwrap();
        assert_eq!(wipings.read_again(&wiping.disk).unwrap(), Some(wiping.clone()));
        std::fs::remove_file(root.path().join(name(&wiping.disk).as_str())).unwrap();
        assert_eq!(wipings.read_again(&wiping.disk).unwrap(), None);
        assert_eq!(wipings.all(), []);
    }

    #[test]
    fn a_partition_of_a_disk_that_is_wiped_is_in_the_way_and_the_disk_of_a_partition_too() {
        let root = tempfile::tempdir().unwrap();
        let wipings = Wipings::open(Folder::at(root.path()).unwrap()).unwrap();
        let (disk, part) = (DiskId("wwid:naa.5000".into()), DiskId::of_partition("g", "wwid:naa.5000"));
        wipings.put(&wiping()).unwrap();
        assert!(wipings.overlap(&disk) && wipings.overlap(&part));
        wipings.remove(&disk).unwrap();
        wipings.put(&Wiping { disk: part.clone(), ..wiping() }).unwrap();
        assert!(wipings.overlap(&disk) && wipings.overlap(&part));
        assert!(!wipings.overlap(&DiskId::of_partition("h", "wwid:naa.5000")));
    }
}
