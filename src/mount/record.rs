//! What was staged and published on this node, one file a volume: how it is undone after a restart.
//!
//! Records lie in a folder named by the boot. A record of an earlier boot would only be a hint, since all it names is
//! gone, so those folders are removed unread. That is also why nothing here is flushed to the disk: what must outlive
//! this process lives in the kernel's cache, and what does not outlive the kernel is of no use.

use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dunnage_driver_api::{
    Access, AccessMode, Error, Fingerprint, FsType, Identity, ReleaseRecord, Result, StagingPath, TargetPath,
    VolumeCapability, VolumeId,
};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::device::DeviceNumber;
use super::holding::Holding;
use super::options::Options;
use super::root::Root;

/// The form of the file that this release writes; it reads this one and the one before.
const VERSION: u32 = 1;
/// How the name of a file ends that is being written, or was the record before.
const NEW: &str = "new";

/// What is known of one volume on this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) volume: VolumeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stage: Option<Stage>,
    /// The targets and what was asked for each: written before the mount, so that a target in it may lack its mount.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) published: BTreeMap<TargetPath, Published>,
}

/// How a volume was brought to this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stage {
    pub(super) path: StagingPath,
    /// Whether the folder at the path was made here, and is to be removed again: an orchestrator removes its own.
    pub(super) made: bool,
    pub(super) asked: Asked,
    /// The word of the attachment by which it was brought: by another one it is another device, whatever its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attachment: Option<String>,
    /// What undoes the driver's part.
    pub(super) release: ReleaseRecord,
    /// The device, once it is known: before anything of it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Device>,
}

impl Stage {
    /// Whether it was brought by this right.
    pub(super) fn is_by(&self, holding: &Holding) -> bool {
        self.attachment.as_deref() == holding.attachment()
    }
}

/// The device of a staged volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) path: PathBuf,
    pub(super) number: DeviceNumber,
    pub(super) identity: Identity,
    /// Whether it came read-only from its driver: then it is never made writable.
    pub(super) read_only: bool,
    /// Whether it was made so here, for the attachment: then that is undone before the device is given back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) made_read_only: bool,
    /// What is mounted at the staging path; nothing for a raw block volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filesystem: Option<Mounted>,
}

/// The file system of a staged volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mounted {
    pub(super) fs_type: FsType,
    pub(super) read_only: bool,
    pub(super) root: Root,
}

/// A target of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) asked: Asked,
    /// Whether the mount is read-only, by the mode, the flag or an option.
    #[serde(default)]
    pub(super) read_only: bool,
    /// Whether a server on the network has what is mounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) served: bool,
    pub(super) root: Root,
}

/// What a request asked for, to be compared with a repeated one. Of the options there are only digests: they may hold
/// secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) block: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fs_type: Option<FsType>,
    pub(super) mode: AccessMode,
    pub(super) readonly: bool,
    options: Fingerprint,
    filesystem_options: Fingerprint,
}

impl Asked {
    /// What a capability asks for, and the flag of a publish.
    pub(super) fn new(capability: &VolumeCapability, options: &Options, readonly: bool) -> Self {
        Self {
            block: capability.access == Access::Block,
            fs_type: match &capability.access {
                Access::Mount(mount) => mount.fs_type,
                Access::Block => None,
            },
            mode: capability.mode,
            readonly,
            options: options.digest(),
            filesystem_options: options.filesystem_digest(),
        }
    }

    /// Whether nobody may write by this.
    pub(super) fn is_read_only(&self) -> bool {
        self.readonly || self.mode.is_read_only()
    }

    /// Whether the file system was told the same.
    pub(super) fn tells_file_system_the_same(&self, other: &Self) -> bool {
        self.filesystem_options == other.filesystem_options
    }
}

impl Record {
    /// Of a volume of which nothing is known yet.
    pub(super) fn new(volume: VolumeId) -> Self {
        Self { version: VERSION, volume, stage: None, published: BTreeMap::new() }
    }
}

/// The folder of records.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    /// The records of this boot below `folder`.
    pub(super) fn new(folder: &Path, boot: &str) -> Self {
        Self { folder: folder.join(format!("boot-{boot}")) }
    }

    /// Makes their folder below `folder`, and removes those of earlier boots and what a write that was cut off left: for
    /// their one writer, before it writes.
    pub(super) fn prepare(&self, folder: &Path) -> Result<()> {
        let own = &self.folder;
        let failed = |error: io::Error| Error::io(format!("cannot prepare {}", folder.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(own).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b"boot-") && path != *own {
                fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        for entry in fs::read_dir(folder).map_err(failed)?.chain(fs::read_dir(own).map_err(failed)?) {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == NEW) {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The folder of this boot.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is known of a volume; an empty record where nothing is.
    ///
    /// # Errors
    /// Where the file cannot be read or understood: then nothing may be concluded from it.
    pub(super) fn load(&self, volume: &VolumeId) -> Result<Record> {
        Ok(self.read(&self.path(volume))?.unwrap_or_else(|| Record::new(volume.clone())))
    }

    /// Every record.
    pub(super) fn all(&self) -> Result<Vec<Record>> {
        self.files()?.iter().filter_map(|path| self.read(path).transpose()).collect()
    }

    /// The volumes that have a record, without reading any.
    pub(super) fn volumes(&self) -> Result<Vec<VolumeId>> {
        let volume = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
        Ok(self.files()?.iter().filter_map(volume).collect())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let failed = |error: io::Error| Error::io(format!("cannot list {}", self.folder.display()), error);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
        Ok(paths.map_err(failed)?.into_iter().filter(is_record).collect())
    }

    /// Keeps a record; removes it where there is nothing left in it.
    pub(super) fn store(&self, record: &Record) -> Result<()> {
        let path = self.path(&record.volume);
        let failed = |error: io::Error| Error::io(format!("cannot write {}", path.display()), error);
        if record.stage.is_none() && record.published.is_empty() {
            return remove(&path).and_then(|()| remove(&path.with_added_extension(NEW))).map_err(failed);
        }
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::internal(format!("cannot write {}", path.display())).caused_by(error))?;
        replace(&path, &text).map_err(failed)
    }

    fn read(&self, path: &Path) -> Result<Option<Record>> {
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot read {}", path.display()), error)),
        };
        let unknown = |why: &str| {
            Error::internal(format!(
                "the record {} {why}: unmount what is mounted of this volume, then remove that file",
                path.display()
            ))
            .retry(false)
        };
        // A later release may have other fields; its version is still the first thing to say.
        if is_later(&text, VERSION) {
            return Err(unknown("was written by a later release"));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| unknown("is damaged").caused_by(error))
    }

    fn path(&self, volume: &VolumeId) -> PathBuf {
        self.folder.join(format!("{volume}.json"))
    }
}

/// Whether a file says of itself that its form is later than `known`.
pub(super) fn is_later(text: &[u8], known: u32) -> bool {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    serde_json::from_slice(text).is_ok_and(|Version { version }| version > known)
}

/// Puts a file in the place of another in one step. Two calls for one path never run at once, since none do for one
/// volume.
///
/// The two change places, and the old one is written over by the next call: a file that takes the place of another, or is
/// made anew each time, has the file system do more than all else here (ext4 even writes it to the disk first).
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension(NEW);
    let spare = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&new)?;
    let spare = match spare.try_lock() {
        Ok(()) => spare,
        Err(TryLockError::Error(error)) => return Err(error),
        // Whoever opened it as the record still reads it.
        Err(TryLockError::WouldBlock) => {
            fs::remove_file(&new)?;
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?
        }
    };
    spare.write_all_at(text, 0)?;
    spare.set_len(text.len() as u64)?;
    drop(spare);
    match rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE) {
        // There is no other yet, or the file system has no such call: the other way tells.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&new, path),
        exchanged => Ok(exchanged?),
    }
}

/// Reads a file that may be replaced meanwhile: it is not written over while it is read.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    file.lock_shared()?;
    let mut text = Vec::with_capacity(2048);
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_whole_however_often_it_is_replaced_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.json");
        let texts = [vec![b'a'; 3000], vec![b'b'; 9000], vec![b'c'; 10]];
        replace(&path, &texts[0]).unwrap();
        std::thread::scope(|scope| {
            let replacing = scope.spawn(|| (0..3000).try_for_each(|count| replace(&path, &texts[count % 3])));
            let mut reads = 0;
            while !replacing.is_finished() || reads == 0 {
                let text = read(&path).unwrap();
                assert!(texts.contains(&text), "torn: {} bytes", text.len());
                reads += 1;
            }
            replacing.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_record_that_is_still_read_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.json");
        replace(&path, b"first").unwrap();
        let reader = fs::File::open(&path).unwrap();
        reader.lock_shared().unwrap();
        for text in ["second", "third", "fourth"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap(), text.as_bytes());
        }
        assert_eq!(io::read_to_string(reader).unwrap(), "first");
    }
}
