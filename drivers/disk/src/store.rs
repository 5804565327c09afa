//! The controller half: records of which disk is which volume's.
//!
//! ```text
//! <root>/.dunnage/volumes/<key>   the record of a volume, with the identity of its disk
//! <root>/wiping/<name>            a disk whose volume was deleted, until it is wiped
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dunnage_driver_api::root::{Record, Records, Root};
use dunnage_driver_api::{
    CapacityRange, Context, Create, CreateVolume, Error, ErrorKind, Expand, Expanded, FsType, Questions, Result, Total,
    Volume, VolumeKey, Volumes,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::Disk;
use crate::content::{self, Content};
use crate::kernel::{Device, DiskId, Kernel};
use crate::wiper::Bell;
use crate::wiping::{Wiping, Wipings};

/// The folder of the disks that are to be wiped.
pub(crate) const WIPING: &str = "wiping";

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

impl Store {
    /// Opens the root of this configuration, and begins to wipe what is to be wiped.
    ///
    /// # Errors
    /// As [`Root::open`]; `FailedPrecondition` where it is not known which disks are to be wiped.
    pub(crate) fn open(config: Disk, driver: &str) -> Result<Arc<Self>> {
        let root = Root::open(&config.root, driver)?;
        let records: Records<Extra> = root.records()?;
        let folder = root.folder().folder_or_make(WIPING, 0o700).map_err(root.folder().failed("open", WIPING))?;
        let mut taken = Taken::default();
        records.each(|record| {
            taken.disks.insert(record.extra.disk, record.volume.key);
        })?;
        // Waits until all were counted.
        records.promised()?;
        let all = records.total().map_or(0, |total| total.volumes);
        let store = Arc::new(Self {
            unreadable: all.saturating_sub(taken.disks.len() as u64),
            config,
            kernel: Kernel::of_node(),
            records,
            wipings: Wipings::open(folder)?,
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

    /// That nobody has the disk of a volume for its own, and that what it carries is the volume's.
    ///
    /// # Errors
    /// `FailedPrecondition` that says what is there.
    fn refuse_foreign(&self, device: &Device, record: &Record<Extra>) -> Result<()> {
        let path = self.kernel.path(device);
        let file =
            self.kernel.open(device, OFlags::RDONLY | OFlags::EXCL).map_err(|error| {
                match Errno::from_io_error(&error) {
                    Some(Errno::BUSY) => Error::precondition(format!(
                        "{} is still in use on this node: unmount it everywhere, end who has it open",
                        path.display()
                    ))
                    .retry(true),
                    _ => Error::io(format!("cannot open {}", path.display()), error),
                }
            })?;
        let extra = &record.extra;
        let known = if extra.used { Known::Of(extra.content.as_deref()) } else { Known::Nothing };
        refuse_content(&file, device.size, &record.volume, known)
            .map_err(|error| error.with("device", path.display()).with("volume", &record.volume.key))
    }

    fn delete_volume(&self, volume: &Volume) -> Result<()> {
        let record = self.records.get(&volume.key)?;
        let Some(record) = record.filter(|record| record.volume.generation == volume.generation) else { return Ok(()) };
        let extra = &record.extra;
        if !self.is_being_deleted(volume) {
            let mut wiping =
                Wiping::new(extra.disk.clone(), volume.key.clone(), volume.generation.clone(), self.config.wipe);
            wiping.content.clone_from(&extra.content);
            match self.kernel.find(&extra.disk)? {
                Some(device) => {
                    self.refuse_foreign(&device, &record)?;
                    wiping.proven = true;
                }
                None => tracing::warn!(
                    volume = volume.key.as_str(),
                    disk = extra.disk.0,
                    "the disk of a volume that is deleted is not there: it is wiped when it comes back"
                ),
            }
            self.wipings.put(&wiping)?;
        }
        let _change = self.change();
        self.records.remove(&volume.key)?;
        // From here on the disk is one that is to be wiped.
        self.taken().disks.remove(&extra.disk);
        self.bell.ring();
        Ok(())
    }

    /// Whether a delete was cut off behind the point of no return.
    pub(crate) fn is_being_deleted(&self, volume: &Volume) -> bool {
        self.wipings.are_of(&volume.key, &volume.generation)
    }
}

/// What is known of the content of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// That nobody has written to it.
    Nothing,
    /// That the volume has, perhaps with this file system.
    Of(Option<&'a str>),
}

/// That what is on a disk can be what this volume has written.
///
/// # Errors
/// `FailedPrecondition` that says what is there.
pub(crate) fn refuse_content(disk: &File, size: u64, volume: &Volume, known: Known<'_>) -> Result<()> {
    let failed = |error| Error::io("cannot read the disk of the volume: see the kernel log", error);
    let place = match content::look(disk, size).map_err(failed)? {
        Content::Blank => return Ok(()),
        Content::Marked(mark) if mark.volume == volume.key && mark.generation == volume.generation => return Ok(()),
        Content::Marked(mark) => {
            return Err(Error::precondition(format!(
                "the disk of the volume is another volume now, {} of instance {}: it was used elsewhere",
                mark.volume, mark.instance
            )));
        }
        Content::Something(place) => place,
    };
    let wanted = match known {
        Known::Of(None) => return Ok(()),
        Known::Of(Some(wanted)) => wanted,
        Known::Nothing => {
            return Err(Error::precondition(format!(
                "the disk of the volume carries something, the first byte at {place}, which the volume has not written: it \
                 was used elsewhere; save what is on it, and wipe the disk"
            )));
        }
    };
    let seen = content::file_system(disk).map_err(failed)?;
    if seen.as_deref() == Some(wanted) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "the disk of the volume has not its file system: {} was there, and now {}; it was used elsewhere: save what is on \
         it, and wipe the disk",
        wanted,
        seen.as_deref().unwrap_or("something else is")
    )))
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
        let _change = self.change();
        let mut record = self
            .records
            .get(&volume.key)?
            .ok_or_else(|| Error::not_found(format!("there is no volume {}", volume.key)))?;
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
        let size = dunnage_driver_api::Bytes::new(device.size);
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
        record.volume.capacity = size;
        self.records.put(&record)?;
        Ok(Expanded::to(size).after_node_expansion())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.bell.stop();
    }
}
