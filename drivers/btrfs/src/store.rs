//! An opened root: making, changing and removing volumes.

use std::sync::Arc;

use dunnage_driver_api::root::{Folder, Record, Records, Reservation, Root, SnapshotRecords};
use dunnage_driver_api::{
    Bytes, CapacityRange, ContentSource, Context, Create, CreateVolume, DirectoryParent, Error, ErrorKind, Expand,
    Expanded, Health, HealthFinding, HealthStatus, Modify, Parameters, Result, Total, Volume, VolumeKey, Volumes,
};
use serde::{Deserialize, Serialize};

use crate::attributes;
use crate::config::Attributes;
use crate::quota::Groups;
use crate::subvolumes::Subvolumes;

/// The size of a volume whose request names none.
const DEFAULT_SIZE: Bytes = Bytes::new(1 << 30);
/// What sizes are multiples of. A limit below it leaves no room for the file system's own blocks.
pub(crate) const UNIT: Bytes = Bytes::new(1 << 20);

pub(crate) struct Store {
    pub(crate) root: Root,
    pub(crate) records: Records<Extra>,
    pub(crate) volumes: Subvolumes,
    /// The folder of the volumes, as the host is told of it.
    pub(crate) parent: Arc<DirectoryParent>,
    pub(crate) snapshot_records: SnapshotRecords<Extra>,
    pub(crate) snapshots: Subvolumes,
    /// Where sizes are enforced.
    pub(crate) groups: Option<Groups>,
}

/// What is kept beside what the host asks for: nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Extra {}

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
    fn create(&self, _: &Context, request: &CreateVolume) -> Result<Volume> {
        let key = request.key.as_str();
        let size = request.capacity.choose(DEFAULT_SIZE, UNIT.get())?;
        let class = request.parameters.parse::<Attributes>()?;
        let wanted = request.mutable_parameters.parse::<Attributes>()?.or(class);
        let room = self.reserve(size)?;
        let volume = request.volume(size)?;
        let made = self
            .make(key, request.content.as_ref(), size, wanted, room)
            .and_then(|()| self.records.put(&Record { volume: volume.clone(), extra: Extra {} }));
        if let Err(error) = made {
            // A record that was written but may not be durable keeps its subvolume: the next attempt finds both.
            if matches!(self.records.get(&request.key), Ok(None)) {
                let _ = self.volumes.undo(key);
            }
            return Err(error);
        }
        self.volumes.place(key)?;
        Ok(volume)
    }

    fn delete(&self, _: &Context, volume: &Volume) -> Result<()> {
        let key = volume.key.as_str();
        if let Some(groups) = &self.groups {
            // What it may still take is promised to nobody from now on, also while a snapshot keeps what it wrote. If it
            // is not destroyed after all, the limit is set again when it is used.
            if let Ok(subvolume) = self.volumes.open(key) {
                groups.ensure(&subvolume, None)?;
            }
            groups.sweep(self.root.folder());
        }
        self.volumes.remove(key)?;
        self.records.remove(&volume.key)
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        self.volumes.contains(volume.key.as_str()).map(|found| !found)
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let mut record = self.record(&volume.key)?;
        let old = record.volume.capacity;
        let size = if capacity.holds(old) { old } else { capacity.choose(old, UNIT.get())? };
        if size < old {
            return Err(Error::new(ErrorKind::OutOfRange, format!("a volume of {old} cannot shrink to {capacity}")));
        }
        if size > old {
            self.limit(&self.volumes.open(volume.key.as_str())?, size, self.reserve(size.minus(old))?)?;
            record.volume.capacity = size;
            self.records.put(&record)?;
        }
        Ok(Expanded::to(size))
    }
}

impl Health for Store {
    fn health(&self, _: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let key = volume.key.as_str();
        if !self.volumes.contains(key)? {
            let message = format!("the subvolume {key} is missing: restore it from a snapshot or a backup");
            return Ok(vec![HealthFinding::new(HealthStatus::DataLoss, "SubvolumeMissing", message)]);
        }
        let mut findings = self.root.health();
        findings.extend(HealthFinding::nearly_full(self.root.sizes()?));
        Ok(findings)
    }
}

impl Modify for Store {
    fn modify(&self, _: &Context, volume: &Volume, parameters: &Parameters) -> Result<()> {
        attributes::set(&self.volumes.open(volume.key.as_str())?, parameters.parse()?)
    }
}

impl Store {
    /// Finishes what was cut off by the end of the last process.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.volumes.sweep(|key| match key.parse() {
            Ok(key) => self.records.get(&key).map(|record| record.is_some()),
            Err(_) => Ok(false),
        })?;
        self.snapshots.sweep(|key| match key.parse() {
            Ok(key) => self.snapshot_records.get(&key).map(|record| record.is_some()),
            Err(_) => Ok(false),
        })?;
        if let Some(groups) = &self.groups {
            groups.sweep(self.root.folder());
        }
        Ok(())
    }

    /// The record of a volume that the host has found.
    pub(crate) fn record(&self, key: &VolumeKey) -> Result<Record<Extra>> {
        self.records.get(key)?.ok_or_else(|| Error::not_found(format!("there is no volume {key}")))
    }

    /// Makes a subvolume with all that a volume has, for [`Subvolumes::place`].
    fn make(
        &self,
        key: &str,
        content: Option<&ContentSource>,
        size: Bytes,
        wanted: Attributes,
        room: Reservation,
    ) -> Result<()> {
        let source = content.map(|content| self.open(content)).transpose()?;
        let made = self.volumes.make(key, source.as_ref(), false)?;
        if wanted != Attributes::default() {
            attributes::set(&made, wanted)?;
        }
        // Full quotas copy the limit of the source.
        self.limit(&made, size, room)
    }

    /// Limits the subvolume, whose limit then speaks for the room that was spoken for before.
    fn limit(&self, subvolume: &Folder, size: Bytes, room: Reservation) -> Result<()> {
        match &self.groups {
            Some(groups) => room.settle(|| groups.ensure(subvolume, Some(size))),
            None => Ok(()),
        }
    }

    fn open(&self, content: &ContentSource) -> Result<Folder> {
        match content {
            ContentSource::Snapshot(snapshot) => self.snapshots.open(snapshot.key.as_str()),
            ContentSource::Volume(volume) => self.volumes.open(volume.key.as_str()),
        }
    }
}
