//! The disks whose volumes were deleted, and which are not wiped yet: a file for each, `<root>/wiping/<name>`.
//!
//! The file is written, durably, before the record of the volume is removed. Both together are a delete that was cut off:
//! nobody gets the volume then, nothing is wiped, and the next delete ends it. The file alone has the disk wiped, by this
//! process or a later one, and goes when that is done.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Generation, Result, VolumeKey};
use serde::{Deserialize, Serialize};

use crate::config::Wipe;
use crate::kernel::DiskId;

const VERSION: u32 = 1;
const LARGEST: u64 = 16 << 10;

/// A disk that is to be wiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wiping {
    version: u32,
    /// The disk.
    pub(crate) disk: DiskId,
    /// The volume that it was.
    pub(crate) volume: VolumeKey,
    /// Which of those that bore the key.
    pub(crate) generation: Generation,
    /// What is to be done, as the configuration said when the volume was deleted.
    pub(crate) wipe: Wipe,
    /// The file system that the volume had, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    /// Whether what is on the disk was seen to be the volume's. It is not to be seen any more once wiping has begun.
    pub(crate) proven: bool,
    /// Up to where it is wiped.
    #[serde(default)]
    pub(crate) done: u64,
}

impl Wiping {
    pub(crate) fn new(disk: DiskId, volume: VolumeKey, generation: Generation, wipe: Wipe) -> Self {
        Self { version: VERSION, disk, volume, generation, wipe, content: None, proven: false, done: 0 }
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

    /// That of a disk.
    pub(crate) fn of(&self, disk: &DiskId) -> Option<Wiping> {
        self.lock().get(disk).cloned()
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<Wiping> {
        self.lock().values().cloned().collect()
    }

    /// Whether a disk is to be wiped that was this volume.
    pub(crate) fn are_of(&self, volume: &VolumeKey, generation: &Generation) -> bool {
        self.lock().values().any(|wiping| wiping.volume == *volume && wiping.generation == *generation)
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
    use super::*;

    fn wiping() -> Wiping {
        let (volume, generation) = (VolumeKey::of_name("pvc-1"), "abc".parse().unwrap());
        Wiping::new(DiskId("wwid:naa.5000".into()), volume, generation, Wipe::Zero)
    }

    #[test]
    fn the_form_is_frozen() {
        let text = r#"{"version":1,"disk":"wwid:naa.5000","volume":"pvc-1","generation":"abc","wipe":"zero","proven":false,"done":0}"#;
        assert_eq!(serde_json::to_string(&wiping()).unwrap(), text);
    }

    #[test]
    fn they_are_there_after_a_restart_and_a_broken_one_keeps_the_store_shut() {
        let root = tempfile::tempdir().unwrap();
        let open = || Wipings::open(Folder::at(root.path()).unwrap());
        let wipings = open().unwrap();
        let mut wiping = wiping();
        wipings.put(&wiping).unwrap();
        (wiping.proven, wiping.done) = (true, 7);
        wipings.put(&wiping).unwrap();
        std::fs::write(root.path().join(".half"), "{").unwrap();
        let wipings = open().unwrap();
        assert_eq!(wipings.all(), [wiping.clone()]);
        assert!(wipings.are_of(&wiping.volume, &wiping.generation));
        wipings.remove(&wiping.disk).unwrap();
        wipings.remove(&wiping.disk).unwrap();
        assert_eq!((wipings.of(&wiping.disk), open().unwrap().all()), (None, Vec::new()));
        std::fs::write(root.path().join("x"), "{\"version\":1}").unwrap();
        assert!(open().err().unwrap().to_string().contains("does not tell which disk"));
    }
}
