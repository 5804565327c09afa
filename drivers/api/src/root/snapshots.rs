//! What is kept of each snapshot: one small file, `<root>/.dunnage/snapshots/<key>`, of the form that volumes have.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Lock;
use super::folder::Folder;
use super::record::Record;
use super::records::{Records, Reservation};
use crate::capacity::Bytes;
use crate::error::Result;
use crate::id::{GroupSnapshotId, SnapshotKey, VolumeId};
use crate::snapshot::Snapshot;
use crate::volume::Volume;

/// What is kept of a snapshot: what the host asked to keep, and the driver's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord<E> {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What the driver keeps beside it.
    pub extra: E,
}

/// The records of the snapshots of a root. `E` is the driver's own part: a struct that the next release still reads.
///
/// Calls for one key must not run at once (the host's locks see to it); calls for different keys may. The promises are
/// those of [`Records`].
pub struct SnapshotRecords<E>(Records<Kept<E>>);

/// What a snapshot has and a volume has not.
#[derive(Serialize, Deserialize)]
struct Kept<E> {
    source: VolumeId,
    created: Duration,
    ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<GroupSnapshotId>,
    extra: E,
}

impl<E: Serialize + DeserializeOwned> SnapshotRecords<E> {
    /// The records in `folder`; begins to fill their index in the background.
    pub(super) fn new(folder: Folder, lock: Lock) -> Result<Self> {
        Records::new(folder, lock).map(Self)
    }

    /// The record of this key; `None` where there is none.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub fn get(&self, key: &SnapshotKey) -> Result<Option<SnapshotRecord<E>>> {
        Ok(self.0.get(key.in_records())?.map(from_volume))
    }

    /// Whether there is a record of this key, without reading it.
    ///
    /// # Errors
    /// As [`Records::contains`].
    pub fn contains(&self, key: &SnapshotKey) -> Result<bool> {
        self.0.contains(key.in_records())
    }

    /// Whether there is no record at all, not even one that cannot be read.
    ///
    /// # Errors
    /// As [`Records::is_empty`].
    pub fn is_empty(&self) -> Result<bool> {
        self.0.is_empty()
    }

    /// Writes a record, over the one that is there; durable when it returns.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub fn put(&self, record: SnapshotRecord<E>) -> Result<()> {
        self.0.put(&to_volume(record))
    }

    /// Removes a record; durable when it returns. Succeeds where there is none.
    ///
    /// # Errors
    /// As [`Records::remove`].
    pub fn remove(&self, key: &SnapshotKey) -> Result<()> {
        self.0.remove(key.in_records())
    }

    /// At most `limit` snapshots in the order of their keys, beginning after `after`; fewer mean that there are no more.
    /// Each is read from its file. A broken record is left out and logged: it must not hide the others.
    ///
    /// # Errors
    /// As [`Records::page`].
    pub fn page(&self, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<SnapshotRecord<E>>> {
        let mut page = Vec::new();
        let mut last = after.cloned();
        while page.len() < limit {
            let wanted = limit - page.len();
            let volumes = self.0.page(last.as_ref().map(SnapshotKey::in_records), wanted)?;
            let ended = volumes.len() < wanted;
            for volume in volumes {
                match self.0.get(&volume.key) {
                    Ok(record) => page.extend(record.map(from_volume)),
                    Err(error) => {
                        tracing::warn!(key = volume.key.as_str(), error = error.report(), "a snapshot is not listed");
                    }
                }
                last = Some(SnapshotKey::of_records(volume.key));
            }
            if ended {
                break;
            }
        }
        Ok(page)
    }

    /// The sum of the sizes of all snapshots and of what is reserved for them.
    ///
    /// # Errors
    /// As [`Records::promised`].
    pub fn promised(&self) -> Result<Bytes> {
        self.0.promised()
    }

    /// As [`Records::reserve`].
    ///
    /// # Errors
    /// As [`Records::reserve`].
    pub fn reserve(&self, bytes: Bytes, fits: impl FnOnce(Bytes) -> Result<()>) -> Result<Reservation> {
        self.0.reserve(bytes, fits)
    }
}

fn to_volume<E>(SnapshotRecord { snapshot, extra }: SnapshotRecord<E>) -> Record<Kept<E>> {
    let Snapshot { key, name, generation, source, size, fingerprint, created, ready, group } = snapshot;
    let mut volume = Volume::new(key.in_records().clone(), generation, size);
    (volume.name, volume.fingerprint, volume.created) = (name, fingerprint, created.as_secs());
    Record { volume, extra: Kept { source, created, ready, group, extra } }
}

fn from_volume<E>(Record { volume, extra: kept }: Record<Kept<E>>) -> SnapshotRecord<E> {
    let Volume { key, name, generation, capacity, fingerprint, .. } = volume;
    let Kept { source, created, ready, group, extra } = kept;
    let key = SnapshotKey::of_records(key);
    let snapshot = Snapshot { key, name, generation, source, size: capacity, fingerprint, created, ready, group };
    SnapshotRecord { snapshot, extra }
}
