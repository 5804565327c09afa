//! Which nodes may use which volumes: kept durably, one record a volume.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attach::Attachment;
use crate::context::Context;
use crate::driver::Init;
use crate::error::{Error, Result};
use crate::id::{InstanceId, VolumeKey};
use crate::node::ReleaseRecord;
use crate::root::{Record, Records, Root};

/// What is kept of a volume that is, or was just now, attached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Granted<G> {
    /// None where all are ended, and the store's device is still to be let go.
    pub(super) grants: Vec<Grant<G>>,
    /// The store's device on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) carved: Option<Carved>,
}

/// An attachment with what the protocol keeps beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant<G> {
    pub(super) attachment: Attachment,
    pub(super) own: G,
}

/// What undoes the device that the store made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Carved {
    /// Devices end with the boot.
    pub(super) boot: String,
    pub(super) release: ReleaseRecord,
}

/// All of them. They lie in a root of their own, whose marker says whose grants they are.
pub(super) struct Grants<G> {
    records: Records<Granted<G>>,
    known: Mutex<BTreeMap<VolumeKey, Record<Granted<G>>>>,
    busy: Mutex<Vec<VolumeKey>>,
    freed: Condvar,
    _root: Root,
}

/// The name that the marker of a folder has which keeps the grants of a store.
pub(super) fn marker(driver: &str, instance: &InstanceId) -> String {
    format!("{driver} for {instance}")
}

pub(super) fn init(folder: &Path, driver: &str, instance: &InstanceId) -> Result<Init> {
    Root::init(folder, &marker(driver, instance))
}

impl<G: Serialize + DeserializeOwned + Clone + PartialEq> Grants<G> {
    pub(super) fn open(folder: &Path, driver: &str, instance: &InstanceId) -> Result<Self> {
        let root = Root::open(folder, &marker(driver, instance))?;
        let records = root.records()?;
        let mut known = BTreeMap::new();
        records.each(|key, record| {
            match record {
                Ok(record) => drop(known.insert(key.clone(), record)),
                Err(error) => tracing::warn!(key = key.as_str(), error = error.report(), "a record is left out"),
            }
            Ok(())
        })?;
        Ok(Self { records, known: Mutex::new(known), busy: Mutex::default(), freed: Condvar::new(), _root: root })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<VolumeKey, Record<Granted<G>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &VolumeKey) -> Option<Record<Granted<G>>> {
        self.known().get(key).cloned()
    }

    pub(super) fn keys(&self) -> Vec<VolumeKey> {
        self.known().keys().cloned().collect()
    }

    /// Keeps a record, durably; removes it where there is nothing left in it.
    pub(super) fn put(&self, record: &Record<Granted<G>>) -> Result<()> {
        let key = &record.volume.key;
        if self.known().get(key) == Some(record) {
            return Ok(());
        }
        if record.extra.grants.is_empty() && record.extra.carved.is_none() {
            self.records.remove(key)?;
            self.known().remove(key);
        } else {
            self.records.put(record)?;
            self.known().insert(key.clone(), record.clone());
        }
        Ok(())
    }

    /// Has the volume alone, once nobody else has it; not where somebody still has at the deadline.
    pub(super) fn hold(&self, cx: &Context, key: &VolumeKey) -> Result<Hold<'_>> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let within = cx.deadline.saturating_duration_since(Instant::now());
        let is_busy = |busy: &mut Vec<VolumeKey>| busy.contains(key);
        let (busy, waited) =
            self.freed.wait_timeout_while(busy, within, is_busy).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(
                Error::precondition("the exports of the volume are still being made or ended: try again").retry(true)
            );
        }
        Ok(self.begin(busy, key))
    }

    /// Has the volume alone, or says that somebody else has it.
    pub(super) fn try_hold(&self, key: &VolumeKey) -> Option<Hold<'_>> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        (!busy.contains(key)).then(|| self.begin(busy, key))
    }

    fn begin<'a>(&'a self, mut busy: MutexGuard<'a, Vec<VolumeKey>>, key: &VolumeKey) -> Hold<'a> {
        busy.push(key.clone());
        Hold { busy: &self.busy, freed: &self.freed, key: key.clone() }
    }
}

/// A volume that one thread has alone.
pub(super) struct Hold<'a> {
    busy: &'a Mutex<Vec<VolumeKey>>,
    freed: &'a Condvar,
    key: VolumeKey,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| *key != self.key);
        self.freed.notify_all();
    }
}
