//! An opened root: what the host may ask of it.

use std::ffi::OsStr;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use dunnage_driver_api::root::{Folder, FolderCopies, Folders, Record, Reservation, Sizes};
use dunnage_driver_api::{
    Bytes, Capacity, CapacityRange, Context, Create, CreateVolume, DirectoryParent, DirectorySource, Error, ErrorKind,
    Expand, Expanded, Generation, Health, HealthFinding, HealthStatus, Node, Parameters, Result, Room, Source,
    SourceRequest, Total, Volume, VolumeKey, Volumes,
};
use serde::{Deserialize, Serialize};

use crate::quota::ProjectQuota;

/// The size of a volume whose request names none.
pub(crate) const DEFAULT_SIZE: Bytes = Bytes::new(1 << 30);

/// An opened root.
pub(crate) struct Store {
    pub(crate) parts: Arc<Parts>,
    pub(crate) copies: Arc<FolderCopies<Parts>>,
}

/// What the calls and the threads that copy share.
pub(crate) struct Parts {
    pub(crate) folders: Folders<Extra>,
    /// The folder of the data, as the host is told of it.
    pub(crate) parent: Arc<DirectoryParent>,
    pub(crate) quota: Option<ProjectQuota>,
    pub(crate) mode: u32,
    /// Volumes and snapshots speak for room one after the other.
    pub(crate) turn: Mutex<()>,
}

impl Deref for Store {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Deref for Parts {
    type Target = Folders<Extra>;

    fn deref(&self) -> &Folders<Extra> {
        &self.folders
    }
}

/// What is kept of a volume or a snapshot beside what the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// The project whose quota is its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<u32>,
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
        let key = &request.key;
        if self.copies.is_for(request) {
            return self.copies.create(cx, request);
        }
        let size = request.capacity.choose(DEFAULT_SIZE, self.unit())?;
        let _making = self.records.making(key);
        self.copies.refuse_made(request)?;
        let room = self.reserve_volume(size, self.copies.promised())?;
        let volume = request.volume(size)?;
        // The folder before the record: a durable record promises that there is a folder.
        let folder = self.make_empty(key)?;
        let made = self
            .limit(&folder, size)
            .and_then(|extra| self.records.put_for(&Record { volume: volume.clone(), extra }, room));
        if let Err(error) = made {
            if matches!(self.records.get(key), Ok(None)) {
                // Where this fails too, the empty folder is found by the next attempt.
                let _ = self.remove_empty(key);
            }
            return Err(error);
        }
        Ok(volume)
    }

    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        self.copies.release(cx, volume)?;
        let project = self.records.get(&volume.key)?.and_then(|record| record.extra.project);
        // The data before the record: data without a record would be nobody's and in the way of the next of that name.
        self.discard(&self.data, volume.key.as_str(), project)?;
        self.records.remove(&volume.key)
    }

    fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        self.copies.abandon(cx, key, generation)
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        self.data.contains(volume.key.as_str()).map(|found| !found)
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let key = &volume.key;
        let mut record = self.records.get(key)?.ok_or_else(|| Error::not_found(format!("there is no volume {key}")))?;
        let old = record.volume.capacity;
        let size = if capacity.holds(old) { old } else { capacity.choose(old, self.unit())? };
        if size < old {
            return Err(Error::new(ErrorKind::OutOfRange, format!("a volume of {old} cannot shrink to {capacity}")));
        }
        if size > old {
            let room = self.reserve_volume(size.minus(old), self.copies.promised())?;
            match (&self.quota, record.extra.project) {
                (Some(quota), Some(project)) => quota.ensure(&self.open_data(key)?, project, size)?,
                (None, Some(_)) => {
                    return Err(Error::precondition(format!(
                        "volume {key} has a project quota, which only a backend with `quota: project` can raise"
                    )));
                }
                (_, None) => {}
            }
            record.volume.capacity = size;
            self.records.put_for(&record, room)?;
        }
        Ok(Expanded::to(size))
    }
}

impl Health for Store {
    fn health(&self, _: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let key = volume.key.as_str();
        if !self.data.contains(key)? {
            let path = self.data.path().join(key);
            let message = format!("the folder {} is missing: restore it from a backup", path.display());
            return Ok(vec![HealthFinding::new(HealthStatus::DataLoss, "FolderMissing", message)]);
        }
        let mut findings = self.root.health();
        findings.extend(HealthFinding::nearly_full(self.root.sizes()?));
        Ok(findings)
    }
}

impl Room for Store {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        let available = match &self.quota {
            Some(_) => {
                let promised = self.records.promised()?.plus(self.snapshots.promised()?).plus(self.copies.promised());
                unpromised(self.root.sizes()?, promised)
            }
            None => self.root.sizes()?.available.minus(self.records.reserved()),
        };
        Ok(Capacity::new(available).at_least(Bytes::new(self.unit())))
    }
}

impl Node for Store {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let key = &request.volume.key;
        let found = self.records.get(key)?.filter(|record| record.volume.generation == request.volume.generation);
        let found = found.ok_or_else(|| Error::not_found(format!("there is no volume {}", request.volume)))?;
        if let (Some(quota), Some(project)) = (&self.quota, found.extra.project) {
            quota.ensure(&self.open_data(key)?, project, found.volume.capacity)?;
        }
        let directory = self.data.open_path(key.as_str()).map_err(|error| self.not_opened(key, error))?;
        Ok(Source::Directory(DirectorySource::new(directory).beneath(self.parent.clone(), key.as_str())))
    }
}

impl Parts {
    /// What sizes are multiples of: a quota counts whole blocks.
    pub(crate) fn unit(&self) -> u64 {
        if self.quota.is_some() { ProjectQuota::UNIT } else { 1 }
    }

    /// Puts the data of a volume or a snapshot into the trash, whose project is this one.
    pub(crate) fn discard(&self, folder: &Folder, key: &str, project: Option<u32>) -> Result<()> {
        if project.is_some() {
            // The limit first: of what has kept its data and its record it is set again when it is used.
            self.forget_project(folder, key, project).map_err(folder.failed("free the quota of", key))?;
        }
        self.root.trash().discard(folder, key)
    }

    /// Lets the file system forget the quota of a folder that goes.
    pub(crate) fn forget_project(&self, parent: &Folder, name: &str, project: Option<u32>) -> io::Result<()> {
        match (&self.quota, parent.folder(name)) {
            (Some(quota), Ok(folder)) => quota.forget(&folder, project),
            // What is no folder has no project of its own.
            _ => Ok(()),
        }
    }

    /// Removes the folder of a create that was cut off or failed; one with data stays as it is.
    pub(crate) fn remove_empty(&self, key: &VolumeKey) -> io::Result<()> {
        if self.quota.is_some() && self.data.folder(key.as_str()).is_ok_and(|folder| folder.is_empty().unwrap_or(false))
        {
            // Nobody but this process ever had it.
            self.forget_project(&self.data, key.as_str(), None)?;
        }
        self.data.remove_folder(key.as_str())
    }

    pub(crate) fn open_data(&self, key: &VolumeKey) -> Result<Folder> {
        self.data.folder(key.as_str()).map_err(|error| self.not_opened(key, error))
    }

    fn not_opened(&self, key: &VolumeKey, error: io::Error) -> Error {
        if error.kind() != io::ErrorKind::NotFound {
            return self.data.failed("open", key.as_str())(error);
        }
        Error::precondition(format!(
            "the data of volume {key} is gone: {} does not exist; if its deletion was cut off, delete it again",
            self.data.path().join(key.as_str()).display()
        ))
    }
}

impl Store {
    /// Removes the empty folder of a create that was cut off. What has data in it and no record stays, and so does a whole
    /// copy that is in its place and has no record yet.
    pub(crate) fn remove_remains(&self, _: &OsStr, key: Option<&VolumeKey>) -> Result<()> {
        if let Some(key) = key.filter(|key| !self.copies.makes(key)) {
            // Only what is empty goes; what does not go the next create of its name tells of.
            let _ = self.remove_empty(key);
        }
        Ok(())
    }

    /// A new folder for this key. What a create left that was cut off goes first, with its quota.
    fn make_empty(&self, key: &VolumeKey) -> Result<Folder> {
        if self.quota.is_some() {
            // What has data in it stays, and is refused.
            let _ = self.remove_empty(key);
        }
        self.data.make_empty(key.as_str(), self.mode)
    }

    fn limit(&self, folder: &Folder, size: Bytes) -> Result<Extra> {
        let project = self.quota.as_ref().map(|quota| quota.assign(folder, size)).transpose()?;
        Ok(Extra { project })
    }
}

impl Parts {
    /// Speaks for `size` of a volume, where that fits now.
    pub(crate) fn reserve_volume(&self, size: Bytes, copies: Bytes) -> Result<Reservation> {
        let sizes = self.root.sizes()?;
        self.could_ever_fit(size, sizes)?;
        if self.quota.is_none() {
            let fits = |reserved| self.fits(size, sizes.available.minus(reserved));
            return self.records.reserve_unpromised(size, fits);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.snapshots.promised()?.plus(copies);
        self.records.reserve(size, |promised| self.fits(size, unpromised(sizes, promised.plus(others))))
    }

    /// Speaks for `size` of a snapshot that has a quota, where that fits now.
    pub(crate) fn reserve_limited_snapshot(&self, size: Bytes, copies: Bytes) -> Result<Reservation> {
        let sizes = self.root.sizes()?;
        self.could_ever_fit(size, sizes)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.records.promised()?.plus(copies);
        let fits = |promised: Bytes| self.fits(size, unpromised(sizes, promised.plus(others)));
        self.snapshots.reserve(size, fits)
    }

    fn could_ever_fit(&self, size: Bytes, sizes: Sizes) -> Result<()> {
        if size <= sizes.total {
            return Ok(());
        }
        let place = self.root.folder().path().display();
        let message = format!("{size} are more than the whole disk of {place} has");
        Err(Error::new(ErrorKind::OutOfRange, message))
    }

    fn fits(&self, size: Bytes, room: Bytes) -> Result<()> {
        if size <= room {
            return Ok(());
        }
        let place = self.root.folder().path().display();
        let message = format!("{place} has room for {room}, and {size} are needed: free some, or grow it");
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }
}

/// What may still be promised: never more than the disk can hold, nor than is free on it, since what is not ours takes
/// room too.
fn unpromised(sizes: Sizes, promised: Bytes) -> Bytes {
    sizes.total.minus(promised).min(sizes.available)
}

#[cfg(test)]
pub(crate) mod tests;
