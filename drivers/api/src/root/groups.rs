//! What is kept of each group of snapshots: one small file, `<root>/.dunnage/groups/<key>`, of the form that volumes have.
//!
//! It is what makes a group whole, or not. It is written before the first member, as one that is not whole; again when
//! all members are there, as one that is; and as not whole again before the first member goes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Lock;
use super::folder::Folder;
use super::record::Record;
use super::records::Records;
use crate::capacity::Bytes;
use crate::error::Result;
use crate::id::{Fingerprint, Generation, SnapshotKey};
use crate::volume::Volume;

/// What is kept of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// What it is found by.
    pub key: SnapshotKey,
    /// Its name.
    pub name: String,
    /// Which of those that bore the key.
    pub generation: Generation,
    /// The digest of the request that made it.
    pub fingerprint: Fingerprint,
    /// The moment whose content the members have, as the time since 1970.
    pub created: Duration,
    /// The members.
    pub members: Vec<SnapshotKey>,
    /// Whether all members are there.
    pub whole: bool,
}

/// The records of the groups of a root. The promises are those of [`Records`].
pub struct GroupRecords(Records<Kept>);

/// What a group has and a volume has not.
#[derive(Serialize, Deserialize)]
struct Kept {
    created: Duration,
    members: Vec<SnapshotKey>,
    whole: bool,
}

impl GroupRecords {
    /// The records in `folder`.
    pub(super) fn new(folder: Folder, lock: Lock) -> Result<Self> {
        Records::new(folder, lock).map(Self)
    }

    /// The record of this key; `None` where there is none.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub fn get(&self, key: &SnapshotKey) -> Result<Option<GroupRecord>> {
        Ok(self.0.get(key.in_records())?.map(from_volume))
    }

    /// Writes a record, over the one that is there; durable when it returns.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub fn put(&self, record: GroupRecord) -> Result<()> {
        let GroupRecord { key, name, generation, fingerprint, created, members, whole } = record;
        let mut volume = Volume::new(key.in_records().clone(), generation, Bytes::ZERO);
        (volume.name, volume.fingerprint, volume.created) = (name, fingerprint, created.as_secs());
        self.0.put(&Record { volume, extra: Kept { created, members, whole } })
    }

    /// Removes a record; durable when it returns. Succeeds where there is none.
    ///
    /// # Errors
    /// As [`Records::remove`].
    pub fn remove(&self, key: &SnapshotKey) -> Result<()> {
        self.0.remove(key.in_records())
    }

    /// The groups that are not whole.
    ///
    /// # Errors
    /// As [`Records::page`]; also where one cannot be read.
    pub fn cut_off(&self) -> Result<Vec<GroupRecord>> {
        let all = self.0.page(None, usize::MAX)?;
        let mut found = Vec::new();
        for volume in all {
            found.extend(self.0.get(&volume.key)?.map(from_volume).filter(|record| !record.whole));
        }
        Ok(found)
    }
}

fn from_volume(Record { volume, extra: kept }: Record<Kept>) -> GroupRecord {
    let Volume { key, name, generation, fingerprint, .. } = volume;
    let Kept { created, members, whole } = kept;
    GroupRecord { key: SnapshotKey::of_records(key), name, generation, fingerprint, created, members, whole }
}
