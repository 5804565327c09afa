//! The controller half: images and their records.
//!
//! ```text
//! <root>/images/<key>                          the bytes of a volume; without a record and never written: what a cut-off
//!                                              create left
//! <root>/snapshots/<key>                       the bytes of a snapshot
//! <root>/unfinished/{images,snapshots}.<key>   a copy that is being made
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dunnage_driver_api::root::{self, Jobs, Record, Reservation, Root};
use dunnage_driver_api::{
    Bytes, Capacity, CapacityRange, Context, Create, CreateVolume, Error, ErrorKind, Expand, Expanded, FsType,
    Generation, Health, HealthFinding, HealthStatus, Parameters, Result, TargetKey, Total, Volume, VolumeKey, Volumes,
};
use serde::{Deserialize, Serialize};

use crate::background::is_another;
use crate::config::{BlockSize, Image};
use crate::copier::Copier;
use crate::copies;
use crate::files::Files;
use crate::image_file;
use crate::loop_device::{self, Backing, LoopDevice};
use crate::room::{Folders, Room};

/// How long a lock without a device is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What every size is a multiple of: the greatest logical block.
pub(crate) const UNIT: Bytes = Bytes::new(4096);

/// The folder of the images.
pub(crate) const IMAGES: &str = "images";

/// What is kept of a volume beside what the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// The logical block size of its loop device: a file system made on one cannot be read on another.
    pub(crate) block_size: BlockSize,
    /// The file system for a capability that names none.
    pub(crate) fs_type: FsType,
}

/// The time that a file has which is written now: that of the last tick.
fn files_now() -> SystemTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = Duration::from_secs(now.tv_sec.cast_unsigned());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(now.tv_nsec.cast_unsigned())
}

/// An opened root.
pub(crate) struct Store {
    pub(crate) config: Image,
    pub(crate) root: Root,
    files: Arc<Files>,
    /// The copies that are made in the background.
    pub(crate) jobs: Arc<Jobs<Extra>>,
    /// Whether the root's file system lets files share blocks, so that a copy is one step.
    pub(crate) shares: bool,
    pub(crate) room: Room,
    /// By the clock that files have their times of.
    opened: SystemTime,
}

impl Deref for Store {
    type Target = Files;

    fn deref(&self) -> &Files {
        &self.files
    }
}

impl Store {
    /// Opens the root of this configuration, begins to remove what creates left that were cut off, and goes on with the
    /// copies.
    ///
    /// # Errors
    /// As [`Root::open`]; `FailedPrecondition` where there are records and their images' folder is missing.
    pub(crate) fn open(config: Image, driver: &str, threads: usize) -> Result<Arc<Self>> {
        let root = Root::open(&config.root, driver)?;
        let files = Files::open(&root, config.allocation)?;
        let shares = copies::can_share(&files)?;
        let (jobs, room) = (Arc::new(root.jobs(threads)?), Room::new(config.overcommit));
        let store = Self { config, root, files, jobs, shares, room, opened: files_now() };
        store.finish_groups()?;
        store.drop_vain_jobs();
        store.finish_copies(&store.jobs)?;
        store.jobs.take_up(Arc::new(Copier::new(store.files.clone())))?;
        let store = Arc::new(store);
        root::sweep(&store, |store| (&store.files.records, &store.files.images), Self::remove_remains)?;
        Ok(store)
    }

    /// The folders whose files take the room of this root.
    pub(crate) fn folders(&self) -> Folders<'_> {
        Folders { images: &self.images, copies: [Some(&self.snapshots), Some(&self.unfinished)] }
    }

    /// Speaks for `bytes` more, for a volume of `size` in all.
    pub(crate) fn reserve_volume(&self, bytes: Bytes, size: Bytes) -> Result<Reservation> {
        let others = || Ok(self.snapshot_records.promised()?.plus(self.jobs.promised()));
        self.room.reserve(&self.folders(), bytes, size, others, |fits| self.records.reserve(bytes, fits))
    }

    /// That there is no volume of the key that is to be made, which the caller [holds](root::Records::making). A copy may have
    /// become one since the host looked: what it is nobody has checked against the request.
    pub(crate) fn refuse_made(&self, request: &CreateVolume) -> Result<()> {
        if self.records.get(&request.key)?.is_none() {
            return Ok(());
        }
        let message = "a copy to a volume of this name has just ended: the same call repeated finds it";
        Err(Error::new(ErrorKind::Running, message).with("name", &request.name))
    }

    /// Removes an image without a record, unless there is data in it.
    fn remove_remains(&self, name: &OsStr, key: Option<&VolumeKey>) -> Result<()> {
        let path = self.images.path().join(name);
        let Some(key) = key else {
            tracing::warn!(path = %path.display(), "a file among the images is not one");
            return Ok(());
        };
        if self.jobs.get(&TargetKey::Volume(key.clone())).is_some() {
            return Ok(());
        }
        match image_file::open(&self.images, key).and_then(|image| self.is_remains(&image)) {
            Ok(true) => self.root.trash().discard(&self.images, name)?,
            Ok(false) => {
                tracing::warn!(path = %path.display(), "an image with data in it, or a new one, is no volume's")
            }
            Err(error) if error.kind() == NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot look into an image of no volume"),
        }
        Ok(())
    }

    /// Whether a file is what a cut-off create left. One that has changed since the root was opened is being written by
    /// somebody: an image that is put back from a backup is empty at first.
    fn is_remains(&self, image: &File) -> std::io::Result<bool> {
        let before = image.metadata()?.modified()? < self.opened;
        Ok(before && image_file::never_written(image)?)
    }

    /// What a loop device of this volume is bound to.
    ///
    /// # Errors
    /// Where the image cannot be looked at.
    pub(crate) fn backing(&self, volume: &Volume, image: &File) -> Result<Backing> {
        let key = volume.key.as_str();
        let stat = rustix::fs::fstat(image).map_err(|error| self.images.failed("look at", key)(error.into()))?;
        Ok(Backing {
            file_name: key.into(),
            device: stat.st_dev,
            inode: stat.st_ino,
            label: format!("dunnage-{}", volume.generation),
        })
    }

    /// Fills a new image and writes its record.
    fn fill(&self, image: &File, record: &Record<Extra>, room: Reservation) -> Result<()> {
        image_file::grow(image, record.volume.capacity.get(), self.config.allocation)?;
        let failed = |error| self.images.failed("sync", record.volume.key.as_str())(error);
        image.sync_all().map_err(failed)?;
        self.images.sync().map_err(failed)?;
        self.records.put_for(record, room)
    }

    /// What has the image bound, or `None` where nothing has, and nothing gets it while the file is open.
    pub(crate) fn bound_to(&self, volume: &Volume, image: &File) -> Result<Option<String>> {
        let backing = self.backing(volume, image)?;
        let until = Instant::now() + PATIENCE;
        let devices = loop {
            let locked = loop_device::lock(image)?;
            let devices = LoopDevice::find_unexpected(image, &backing)?;
            if locked && devices.is_empty() {
                return Ok(None);
            }
            // A lock without a device is one that is being let go.
            if !devices.is_empty() || Instant::now() >= until {
                break devices;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let paths: Vec<_> =
            devices.iter().map(|device| loop_device::path(device.number).display().to_string()).collect();
        Ok(Some(if paths.is_empty() { "a loop device".into() } else { paths.join(", ") }))
    }

    /// That no loop device has the image, and none gets it while the file is open.
    fn refuse_bound(&self, volume: &Volume, image: &File) -> Result<()> {
        let Some(who) = self.bound_to(volume, image)? else { return Ok(()) };
        Err(Error::precondition(format!(
            "the image is still bound to {who}: unstage the volume, or run `losetup --detach` if nobody uses it"
        ))
        .with("volume", &volume.key)
        .retry(true))
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
        let begun = self.jobs.get(&TargetKey::Volume(request.key.clone()));
        match (&request.content, begun) {
            (Some(content), None) if self.shares => return self.create_from(cx, request, content),
            (Some(content), _) => return self.create_in_background(cx, request, content),
            (None, Some(_)) => return Err(is_another(request)),
            (None, None) => {}
        }
        let size = request.device_size(self.config.fs_type, UNIT)?;
        let volume = request.volume(size)?;
        let _making = self.records.making(&request.key);
        self.refuse_made(request)?;
        let room = self.reserve_volume(size, size)?;
        let image = image_file::make(&self.images, &request.key)?;
        let fs_type = request.fs_type(self.config.fs_type);
        let record = Record { volume, extra: Extra { block_size: self.config.block_size, fs_type } };
        if let Err(error) = self.fill(&image, &record, room) {
            // A record that was written but may not be durable keeps its image: the next attempt finds both.
            if matches!(self.records.get(&request.key), Ok(None)) {
                let _ = self.images.unlink(request.key.as_str());
            }
            return Err(error.during("create the image").with("volume", &request.key));
        }
        Ok(record.volume)
    }

    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        self.jobs.refuse_volume(&volume.key)?;
        let target = TargetKey::Volume(volume.key.clone());
        // Of one that is whole and was a copy: gone on with, it would make the volume again.
        if self.jobs.stop(&target, cx.deadline)?.is_some() {
            self.jobs.remove(&target)?;
        }
        match image_file::open(&self.images, &volume.key) {
            Ok(image) => {
                self.refuse_bound(volume, &image)?;
                // Into the trash while the lock is held: nobody can bind it any more.
                self.root.trash().discard(&self.images, volume.key.as_str())?;
            }
            // An attempt before this one was cut off here, perhaps before the image was gone durably.
            Err(error) if error.kind() == NotFound => self.root.trash().discard(&self.images, volume.key.as_str())?,
            Err(error) => return Err(self.images.failed("open the image", volume.key.as_str())(error)),
        }
        self.remove_unfinished(self.place(&target))?;
        self.records.remove(&volume.key)
    }

    fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        match self.jobs.makes(key, generation) {
            true => self.give_up(&TargetKey::Volume(key.clone()), cx.deadline).map(drop),
            false => Ok(()),
        }
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        self.images.contains(volume.key.as_str()).map(|found| !found)
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let key = volume.key.as_str();
        let mut record =
            self.records.get(&volume.key)?.ok_or_else(|| Error::not_found(format!("there is no volume {key}")))?;
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
        let size = capacity.choose(old, UNIT.get())?;
        let room = self.reserve_volume(size.minus(old), size)?;
        let image = image_file::open(&self.images, &volume.key).map_err(self.images.failed("open the image", key))?;
        image_file::grow(&image, size.get(), self.config.allocation)?;
        image.sync_all().map_err(self.images.failed("sync", key))?;
        // The record comes last: until then a repeated call does the same again.
        record.volume.capacity = size;
        self.records.put_for(&record, room)?;
        Ok(Expanded::to(size).after_node_expansion())
    }
}

impl Health for Store {
    fn health(&self, _: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let (key, path) = (volume.key.as_str(), self.images.path().join(volume.key.as_str()));
        let lost = |reason, what: String| {
            let message = format!("the image {} {what}: restore it from a snapshot or a backup", path.display());
            Ok(vec![HealthFinding::new(HealthStatus::DataLoss, reason, message)])
        };
        let stat = match self.images.stat(key) {
            Err(error) if error.kind() == NotFound => return lost("ImageMissing", "is missing".into()),
            found => found.map_err(self.images.failed("look at", key))?,
        };
        let (length, size) = (stat.st_size.cast_unsigned(), volume.capacity.get());
        if length < size {
            return lost("ImageCutShort", format!("has {length} bytes and its volume {size}"));
        }
        let mut findings = HealthFinding::of_store(&self.images, self.images.path());
        // Blocks that a snapshot shares are taken anew when they are written.
        if self.shares || stat.st_blocks.cast_unsigned().saturating_mul(512) < size {
            let sizes = self.images.sizes().map_err(self.images.failed("measure", ""))?;
            findings.extend(HealthFinding::nearly_full(sizes));
        }
        Ok(findings)
    }
}

impl dunnage_driver_api::Room for Store {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        let copies = self.snapshot_records.promised()?.plus(self.jobs.promised());
        self.room.capacity(&self.folders(), self.records.promised()?.plus(copies))
    }
}
