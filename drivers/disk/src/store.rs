//! The controller half: records of which disk is which volume's.
//!
//! ```text
//! <root>/.dunnage/volumes/<key>   the record of a volume, with the identity of its disk
//! <root>/wiping/<name>            a disk whose volume was deleted, until it is wiped
//! <root>/left/<name>              a disk on which a wipe that is not `zero` has left what was written
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::root::{Record, Records, Root};
use dunnage_driver_api::{
    Bytes, CapacityRange, Context, Create, CreateVolume, Error, ErrorKind, Expand, Expanded, FsType, Questions, Result,
    Total, Volume, VolumeKey, Volumes,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::Disk;
use crate::identity::DiskId;
use crate::kernel::{Device, Kernel};
use crate::rules;
use crate::wiper::Bell;
use crate::wiping::Wipings;

/// The folder of the disks that are to be wiped.
pub(crate) const WIPING: &str = "wiping";
/// The folder of the disks that were wiped otherwise than by zeros.
pub(crate) const LEFT: &str = "left";
/// How long a disk may take to be looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// What is kept of a volume beside what the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// The disk.
    pub(crate) disk: DiskId,
    /// The file system for a capability that names none.
    pub(crate) fs_type: FsType,
    /// Whether it was asked for as a file system alone, so that the file system on it stays the same one.
    pub(crate) mounted: bool,
    /// Whether it was ever brought to the node: until then the disk has nothing but the mark.
    pub(crate) used: bool,
    /// The file system that was seen on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

/// An opened root.
pub(crate) struct Store {
    pub(crate) config: Disk,
    pub(crate) kernel: Kernel,
    pub(crate) root: Root,
    pub(crate) records: Records<Extra>,
    pub(crate) wipings: Wipings,
    /// The disks that no raw volume may have: what is on them is a former volume's.
    pub(crate) left: Wipings,
    pub(crate) questions: Arc<Questions<DiskId>>,
    pub(crate) bell: Arc<Bell>,
    taken: Mutex<Taken>,
    /// Told when a disk is free again.
    pub(crate) freed: Condvar,
    /// Held while a record is read and written again: the host's locks are not those of the wiper.
    changing: Mutex<()>,
    /// How many records could not be read when the root was opened: their disks are not known.
    pub(crate) unreadable: u64,
}

/// Which disks are volumes, or are being made one, and what was seen of the others.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) disks: BTreeMap<DiskId, VolumeKey>,
    /// When a disk was looked at, and whether it was free.
    pub(crate) seen: BTreeMap<DiskId, (Instant, bool)>,
    /// The disks that are being wiped by this process.
    pub(crate) wiping: BTreeSet<DiskId>,
    /// Why a disk could not be wiped, as the log has it.
    pub(crate) said: BTreeMap<DiskId, String>,
}

impl Taken {
    /// Whether this disk, what it lies on, or a part of it is a volume's.
    pub(crate) fn overlap(&self, disk: &DiskId) -> bool {
        self.disks.keys().any(|other| other.overlaps(disk))
    }
}

impl Store {
    /// Opens the root of this configuration, and begins to wipe what is to be wiped.
    ///
    /// # Errors
    /// As [`Root::open`]; `FailedPrecondition` where it is not known which disks are to be wiped.
    pub(crate) fn open(config: Disk, driver: &str) -> Result<Arc<Self>> {
        let root = Root::open(&config.root, driver)?;
        let records: Records<Extra> = root.records()?;
        let folder = root.folder().folder_or_make(WIPING, 0o700).map_err(root.folder().failed("open", WIPING))?;
        let left = root.folder().folder_or_make(LEFT, 0o700).map_err(root.folder().failed("open", LEFT))?;
        let (mut taken, mut unreadable) = (Taken::default(), 0);
        records.each(|key, record| {
            match record {
                Ok(record) => drop(taken.disks.insert(record.extra.disk, record.volume.key)),
                Err(error) => {
                    tracing::error!(
                        key = key.as_str(),
                        error = error.report(),
                        "it is not known which disk a volume has"
                    );
                    unreadable += 1;
                }
            }
            Ok(())
        })?;
        let store = Arc::new(Self {
            unreadable,
            config,
            kernel: Kernel::of_node(),
            records,
            wipings: Wipings::open(folder)?,
            left: Wipings::open(left)?,
            root,
            questions: Arc::default(),
            bell: Arc::default(),
            taken: Mutex::new(taken),
            freed: Condvar::new(),
            changing: Mutex::default(),
        });
        crate::wiper::start(&store)?;
        Ok(store)
    }

    pub(crate) fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is whole before anything can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to read a record and write it again.
    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device of a volume.
    ///
    /// # Errors
    /// `FailedPrecondition` where this node does not have it now, or has it twice.
    pub(crate) fn device(&self, record: &Record<Extra>) -> Result<Device> {
        self.kernel.find(&record.extra.disk)?.ok_or_else(|| {
            Error::precondition(format!(
                "the disk {} of the volume is not on this node: put it back, and see the kernel log; if it is lost, so is \
                 the volume",
                record.extra.disk
            ))
            .with("volume", &record.volume.key)
        })
    }

    /// That a disk is as large as its volume.
    ///
    /// # Errors
    /// `FailedPrecondition` where it is not: it is another disk, or somebody has changed it.
    pub(crate) fn refuse_size(&self, device: &Device, volume: &Volume) -> Result<()> {
        let (has, wants) = (device.size, volume.capacity.get());
        if has == wants {
            return Ok(());
        }
        let (how, then) = if has < wants {
            ("smaller", "make it as large again")
        } else {
            ("larger", "expand the volume to its size, or make it as small again")
        };
        Err(Error::precondition(format!(
            "{} has {has} bytes and its volume {wants}: the disk or the partition was made {how}; {then}",
            self.kernel.path(device).display()
        ))
        .with("volume", &volume.key))
    }

    /// Changes what is kept of a volume, where it is still there.
    ///
    /// # Errors
    /// Where it is not, or cannot be written.
    pub(crate) fn note(&self, volume: &Volume, change: impl FnOnce(&mut Extra)) -> Result<()> {
        let _change = self.change();
        let now = self.records.get(&volume.key)?.filter(|now| now.volume.generation == volume.generation);
        let mut now = now.ok_or_else(|| Error::not_found(format!("there is no volume {} any more", volume.key)))?;
        change(&mut now.extra);
        self.records.put(&now)
    }

    /// Opens the disk of a volume to be written to, for our own.
    ///
    /// # Errors
    /// `FailedPrecondition` where somebody has it, or it is not as large as the volume.
    pub(crate) fn hold(&self, device: &Device, record: &Record<Extra>) -> Result<(File, Device)> {
        let path = self.kernel.path(device);
        let in_use = |why: &str| {
            Error::precondition(format!(
                "{} is still in use on this node ({why}): unmount it everywhere, end who has it open",
                path.display()
            ))
            .retry(true)
        };
        rules::refuse_held(&self.kernel, device).map_err(|why| in_use(&why))?;
        let held = self.kernel.open(&record.extra.disk, device, OFlags::RDWR | OFlags::EXCL);
        let (file, now) = held.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => in_use("somebody has it for its own"),
            _ => Error::io(format!("cannot open {}", path.display()), error),
        })?;
        self.refuse_size(&now, &record.volume)?;
        Ok((file, now))
    }
}

impl Volumes for Store {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        Ok(self.records.get(key)?.map(|record| record.volume))
    }

    fn list(&self, _: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        self.records.page(after, limit)
    }

    fn total(&self, _: &Context) -> Result<Option<Total>> {
        Ok(self.records.total())
    }

    fn probe(&self, _: &Context) -> Result<()> {
        self.root.probe()
    }
}

impl Create for Store {
    fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        self.take(cx, request).map_err(|error| error.during("find a disk for the volume").with("volume", &request.key))
    }

    fn delete(&self, _: &Context, volume: &Volume) -> Result<()> {
        self.delete_volume(volume)
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        Ok(self.is_being_deleted(volume))
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let record = self
            .records
            .get(&volume.key)?
            .ok_or_else(|| Error::not_found(format!("there is no volume {}", volume.key)))?;
        if self.is_being_deleted(&record.volume) {
            return Err(Error::precondition("the volume is being deleted: repeat the delete to end it"));
        }
        let old = record.volume.capacity;
        if capacity.limit().is_some_and(|limit| limit < old) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("the volume has {} bytes, asked for {capacity}: a volume never becomes smaller", old.get()),
            ));
        }
        if capacity.required() <= old {
            return Ok(Expanded::to(old).after_node_expansion());
        }
        let device = self.device(&record)?;
        let device = self.kernel.ask_size(&device)?.unwrap_or(device);
        let size = Bytes::new(device.size);
        if !capacity.holds(size) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "the disk of the volume has {} bytes, asked for {capacity}: a volume is as large as its disk; copy what is \
                     on it to a volume on another disk",
                    size.get()
                ),
            ));
        }
        let _change = self.change();
        let now = self.records.get(&volume.key)?.filter(|now| now.volume.generation == record.volume.generation);
        let mut now = now.ok_or_else(|| Error::not_found(format!("there is no volume {}", volume.key)))?;
        now.volume.capacity = size;
        self.records.put(&now)?;
        Ok(Expanded::to(size).after_node_expansion())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.bell.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_what_is_kept_is_frozen() {
        let extra = Extra {
            disk: DiskId("wwid:naa.5".into()),
            fs_type: FsType::Ext4,
            mounted: true,
            used: true,
            content: Some("ext4:07".into()),
        };
        let text = r#"{"disk":"wwid:naa.5","fs_type":"ext4","mounted":true,"used":true,"content":"ext4:07"}"#;
        assert_eq!(serde_json::to_string(&extra).unwrap(), text);
        assert_eq!(serde_json::from_str::<Extra>(text).unwrap(), extra);
    }
}
