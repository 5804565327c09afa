//! Snapshots: read-only subvolumes beside the volumes.
//!
//! The kernel writes out what the volume's files have in memory before it cuts, so that nothing is to be frozen. A
//! snapshot shares its blocks with its volume and needs neither it nor what is made from the snapshot.

use dunnage_driver_api::root::SnapshotRecord;
use dunnage_driver_api::{Context, CreateSnapshot, Result, Snapshot, SnapshotKey, Snapshots};

use crate::store::{Extra, Store};

impl Snapshots for Store {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        Ok(self.snapshot_records.get(key)?.map(|record| record.snapshot))
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        Ok(self.snapshot_records.page(after, limit)?.into_iter().map(|record| record.snapshot).collect())
    }

    fn create(&self, _: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let key = request.key.as_str();
        let source = self.volumes.open(request.volume.key.as_str())?;
        let snapshot = request.snapshot()?;
        let made = self.snapshots.make(key, Some(&source), true).and_then(|made| {
            if let Some(groups) = &self.groups {
                // Full quotas copy the limit of the volume, as if the snapshot could grow.
                groups.ensure(&made, None)?;
            }
            self.snapshot_records.put(SnapshotRecord { snapshot: snapshot.clone(), extra: Extra {} })
        });
        if let Err(error) = made {
            if matches!(self.snapshot_records.get(&request.key), Ok(None)) {
                let _ = self.snapshots.undo(key);
            }
            return Err(error);
        }
        self.snapshots.place(key)?;
        Ok(snapshot)
    }

    fn delete(&self, _: &Context, snapshot: &Snapshot) -> Result<()> {
        self.snapshots.remove(snapshot.key.as_str())?;
        self.snapshot_records.remove(&snapshot.key)?;
        if let Some(groups) = &self.groups {
            groups.sweep(self.root.folder());
        }
        Ok(())
    }

    fn is_half_deleted(&self, _: &Context, snapshot: &Snapshot) -> Result<bool> {
        self.snapshots.contains(snapshot.key.as_str()).map(|found| !found)
    }
}
