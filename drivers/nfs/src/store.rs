//! An open export: what the host may ask of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use dunnage_driver_api::root::{self, Folder, FolderCopies, Folders, Record, Reservation, Root, Tenure};
use dunnage_driver_api::{
    Bytes, Capacity, CapacityRange, Context, Create, CreateVolume, Driver, Error, ErrorKind, Expand, Expanded,
    Generation, Health, HealthFinding, HealthStatus, InstanceId, NodeName, Parameters, Permissions, Result, Room,
    Total, Volume, VolumeKey, Volumes,
};
use rustix::fs::{Gid, Mode, Uid};
use serde::{Deserialize, Serialize};

use crate::class::{Class, OnDelete};
use crate::config::Nfs;
use crate::export::{is_away, squash};
use crate::paths::VolumePath;
use crate::places::{Places, Taken};
use crate::retained::{self, RETAINED};

/// The size of a volume whose request names none.
pub(crate) const DEFAULT_SIZE: Bytes = Bytes::new(1 << 30);
const ARCHIVE: &str = "archive";

/// The root that this process holds.
pub(crate) struct Store {
    pub(crate) parts: Arc<Parts>,
    pub(crate) copies: Arc<FolderCopies<Parts>>,
}

/// What the calls and the threads that copy share.
pub(crate) struct Parts {
    pub(crate) folders: Folders<Extra>,
    pub(crate) places: Places,
    pub(crate) on_delete: OnDelete,
    pub(crate) tenure: Tenure,
    mode: Permissions,
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

/// What is kept of a volume beside what the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// Where its data is below `volumes`, where that is not its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<VolumePath>,
    /// What becomes of its files.
    #[serde(default)]
    pub(crate) on_delete: OnDelete,
}

impl Extra {
    /// Where the data of the volume of this key is.
    pub(crate) fn path(&self, key: &VolumeKey) -> VolumePath {
        self.folder.clone().unwrap_or_else(|| VolumePath::of_key(key))
    }
}

impl Store {
    /// Opens the root that `folder` is, and takes it for the process on `node`. The backend has so many threads.
    pub(crate) fn open(config: &Nfs, folder: Folder, node: &NodeName, threads: usize) -> Result<Arc<Self>> {
        let root = Root::open_in(folder, Nfs::NAME)?;
        let tenure = root.hold(node)?;
        let folders = Folders::open(root)?;
        if let Some((text, remedy)) = squash(folders.root.folder()) {
            tracing::warn!("{text}: {remedy}");
        }
        let (mode, on_delete) = (config.mode, config.on_delete);
        let parts = Arc::new(Parts { folders, places: Places::default(), on_delete, tenure, mode });
        let copies = Arc::new(FolderCopies::open(parts.clone(), threads)?);
        let store = Arc::new(Self { parts, copies });
        root::sweep(&store, |store| (&store.records, &store.data), Self::remove_remains)?;
        Ok(store)
    }

    /// Removes the empty folder of a create that was cut off, or of a path without a volume. What has anything in it stays.
    fn remove_remains(&self, name: &OsStr, _: Option<&VolumeKey>) -> Result<()> {
        if let Some(path) = name.to_str().and_then(|name| VolumePath::new(name).ok()) {
            // A volume may lie here, or below, whose key is another.
            self.places.know(|| self.taken())?;
            // What does not go the next create of its name tells of.
            self.places.unless_taken(&path, || drop(self.data.remove_folder(name)));
        }
        Ok(())
    }
}

impl Parts {
    pub(crate) fn instance(&self) -> &InstanceId {
        self.root.instance()
    }

    /// The volume of this key, by its record.
    pub(crate) fn volume(&self, key: &VolumeKey) -> Result<Option<Volume>> {
        Ok(self.records.get(key)?.map(|record| record.volume))
    }

    /// The record of this very volume. The store may have been lost since the host looked, and be opened anew with another
    /// volume of this name.
    fn record_of(&self, volume: &Volume) -> Result<Option<Record<Extra>>> {
        Ok(self.records.get(&volume.key)?.filter(|record| record.volume.generation == volume.generation))
    }

    pub(crate) fn is_ours(&self) -> Result<bool> {
        self.tenure.is_ours()
    }

    /// What is kept of a volume that a request asks for.
    pub(crate) fn wanted(&self, request: &CreateVolume) -> Result<Extra> {
        let class: Class = request.parameters.parse()?;
        let folder = class.path(request)?;
        Ok(Extra { folder, on_delete: class.on_delete.unwrap_or(self.on_delete) })
    }

    /// Takes the path of a volume that is to be made.
    pub(crate) fn take_place(&self, key: &VolumeKey, extra: &Extra) -> Result<()> {
        let path = extra.path(key);
        // Also where the class names no folder: its key may be what the class of another named.
        self.places.know(|| self.taken())?;
        if self.places.has_unknown() && path.exists(&self.data)? {
            // It may be mended by now.
            self.places.read_again();
            self.places.know(|| self.taken())?;
            if self.places.has_unknown() {
                return Err(Error::precondition(format!(
                    "{} may belong to a volume whose record is broken, as the log says: mend that record, or remove it",
                    self.data.path().join(path.to_string()).display()
                )));
            }
        }
        self.places.take(&path)
    }

    /// The paths of all volumes, and of what is retained.
    fn taken(&self) -> Result<Taken> {
        let mut has_unknown = false;
        let mut paths = match self.root.folder().folder(RETAINED) {
            Ok(retained) => retained::places(&retained, &self.data)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(self.root.folder().failed("open", RETAINED)(error)),
        };
        self.records.each(|key, record| {
            match record {
                Ok(record) => drop(paths.insert(record.extra.path(key))),
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(key = key.as_str(), error = error.report(), "nobody can say where a volume lies");
                    paths.insert(VolumePath::of_key(key));
                    has_unknown = true;
                }
            }
            Ok(())
        })?;
        Ok(Taken { paths, has_unknown })
    }

    /// That no folder above a path has files in it and no volume: one that has is not one of ours to put volumes in.
    pub(crate) fn refuse_strays(&self, path: &VolumePath) -> Result<()> {
        for above in path.above() {
            let stray = above.exists(&self.data)? && !self.places.has_below_other(&above, path);
            if stray && !self.is_empty(&above)? {
                return Err(Error::precondition(format!(
                    "{} has files in it and no volume: move it away, or use another `folder`",
                    self.data.path().join(above.to_string()).display()
                )));
            }
        }
        Ok(())
    }

    /// Makes the empty folder of a volume, durable, at a path that is taken for it.
    fn make(&self, path: &VolumePath, class: &Class) -> Result<()> {
        self.refuse_strays(path)?;
        let failed = |error: io::Error| self.data.failed("make", path.to_string())(error);
        let parent = path.make_parent(&self.data).map_err(failed)?;
        let mode = class.mode.unwrap_or(self.mode).bits();
        let folder = parent.make_empty(path.last(), mode)?;
        if class.uid.is_some() || class.gid.is_some() {
            let owner = (class.uid.map(Uid::from_raw), class.gid.map(Gid::from_raw));
            // To change the owner takes the bits of other users' rights away.
            rustix::fs::fchown(&folder, owner.0, owner.1)
                .and_then(|()| rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode)))
                .map_err(|error| self.data.failed("change the owner of", path.to_string())(error.into()))?;
        }
        folder.sync().map_err(self.data.failed("sync", path.to_string()))
    }

    fn is_empty(&self, path: &VolumePath) -> Result<bool> {
        let empty = path.parent(&self.data).and_then(|parent| parent.folder(path.last())?.is_empty());
        empty.map_err(self.data.failed("look into", path.to_string()))
    }

    pub(crate) fn remove_empty(&self, path: &VolumePath) {
        // Where this fails the empty folder is found by the next attempt.
        let _ = path.parent(&self.data).and_then(|parent| parent.remove_folder(path.last()));
    }

    /// Speaks for `size`, where that fits now.
    pub(crate) fn reserve_room(&self, size: Bytes) -> Result<Reservation> {
        let sizes = self.root.sizes()?;
        let place = self.root.folder().path().display();
        if size > sizes.total {
            let message = format!("{size} are more than all of {place} has");
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        self.records.reserve_unpromised(size, |reserved| {
            let room = sizes.available.minus(reserved);
            if size <= room {
                return Ok(());
            }
            let message = format!("{place} has room for {room}, and {size} are needed: free some, or grow it");
            Err(Error::new(ErrorKind::ResourceExhausted, message))
        })
    }

    /// Puts the data of a deleted volume where its class wants it; it is out of its place durably when this returns.
    fn put_away(&self, volume: &Volume, extra: &Extra) -> Result<()> {
        let path = extra.path(&volume.key);
        let parent = match path.parent(&self.data) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            parent => parent.map_err(self.data.failed("open", path.to_string()))?,
        };
        match extra.on_delete {
            OnDelete::Delete => self.root.trash().discard(&parent, path.last()),
            OnDelete::Retain if parent.contains(path.last())? => {
                let folder = self.root.folder().folder_or_make(RETAINED, 0o700);
                retained::note(&folder.map_err(self.root.folder().failed("open", RETAINED))?, volume, &path)
            }
            OnDelete::Retain => Ok(()),
            OnDelete::Archive => {
                let failed = |error: io::Error| self.data.failed("archive", path.to_string())(error);
                let archive = self.root.folder().folder_or_make(ARCHIVE, 0o700).map_err(failed)?;
                let name = path.clone().with_suffix(volume.generation.as_str());
                let to = name.make_parent(&archive).map_err(failed)?;
                match parent.rename(path.last(), &to, name.last()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                // The new name first: at no moment is it durable that there is none.
                to.sync().and_then(|()| parent.sync()).map_err(failed)
            }
        }
    }
}

impl Volumes for Store {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        self.volume(key)
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
        if self.copies.is_for(request) {
            return self.copies.create(cx, request);
        }
        let class: Class = request.parameters.parse()?;
        let extra = self.wanted(request)?;
        let (key, path) = (&request.key, extra.path(&request.key));
        let size = request.capacity.choose(DEFAULT_SIZE, 1)?;
        let _making = self.records.making(key);
        self.copies.refuse_made(request)?;
        let _room = self.reserve_room(size)?;
        let volume = request.volume(size)?;
        self.take_place(key, &extra)?;
        // The folder before the record: a durable record promises that there is a folder.
        let made = self.make(&path, &class).and_then(|()| self.records.put(&Record { volume: volume.clone(), extra }));
        if let Err(error) = made {
            match self.records.get(key) {
                Ok(None) => {
                    self.remove_empty(&path);
                    self.places.free(&path);
                }
                Ok(Some(_)) => {}
                Err(_) => self.places.doubt(&path),
            }
            return Err(error);
        }
        Ok(volume)
    }

    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        // What has no record is gone, and whatever lies where it was is not its own.
        let Some(Record { extra, .. }) = self.record_of(volume)? else { return Ok(()) };
        self.copies.release(cx, volume)?;
        // The data before the record: data without a record would be nobody's and in the way of the next of that name.
        self.put_away(volume, &extra)?;
        self.records.remove(&volume.key)?;
        if extra.on_delete != OnDelete::Retain {
            let path = extra.path(&volume.key);
            self.places.free(&path);
            for above in path.above().collect::<Vec<_>>().iter().rev() {
                // What is not empty stays, and so does what a volume is being made in.
                self.places.unless_taken(above, || self.remove_empty(above));
            }
        }
        Ok(())
    }

    fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        self.copies.abandon(cx, key, generation)
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        let Some(record) = self.record_of(volume)? else { return Ok(false) };
        record.extra.path(&volume.key).exists(&self.data).map(|found| !found)
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let mut record = self.record_of(volume)?.ok_or_else(|| gone(volume))?;
        let old = record.volume.capacity;
        let size = if capacity.holds(old) { old } else { capacity.choose(old, 1)? };
        if size < old {
            return Err(Error::new(ErrorKind::OutOfRange, format!("a volume of {old} cannot shrink to {capacity}")));
        }
        if size > old {
            let _room = self.reserve_room(size.minus(old))?;
            record.volume.capacity = size;
            self.records.put(&record)?;
        }
        Ok(Expanded::to(size))
    }
}

fn gone(volume: &Volume) -> Error {
    Error::not_found(format!("volume {} of generation {} is gone", volume.key, volume.generation))
}

impl Health for Store {
    fn health(&self, _: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let path = self.record_of(volume)?.ok_or_else(|| gone(volume))?.extra.path(&volume.key);
        if !path.exists(&self.data)? {
            let place = self.data.path().join(path.to_string());
            let message = format!("the folder {} is missing: restore it from a backup", place.display());
            return Ok(vec![HealthFinding::new(HealthStatus::DataLoss, "FolderMissing", message)]);
        }
        Ok(HealthFinding::nearly_full(self.root.sizes()?).into_iter().collect())
    }
}

impl Room for Store {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        Ok(Capacity::new(self.root.sizes()?.available.minus(self.records.reserved())).at_least(Bytes::new(1)))
    }
}

#[cfg(test)]
mod tests;
