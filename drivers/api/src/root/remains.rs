//! What creates left that were cut off: data without a record.
//!
//! It is looked for once a root is open, in the background, since that means to read all names there are, and no answer
//! rests on it: a create of the same name sees to what it finds. So that what a create is just making is not taken for
//! such remains, it holds its key meanwhile.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Folder, Records};
use crate::error::{Error, Result};
use crate::id::VolumeKey;

/// The keys whose data is being made, or taken for remains and removed.
#[derive(Default)]
pub(super) struct Held {
    keys: Mutex<BTreeSet<VolumeKey>>,
    let_go: Condvar,
}

/// Holds the key of a volume that is being made, until this is dropped: take it before there is any data, and keep it
/// until the record is written.
#[must_use]
pub struct Making {
    held: Arc<Held>,
    key: VolumeKey,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<VolumeKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else holds the key.
    pub(super) fn hold(self: &Arc<Self>, key: &VolumeKey) -> Making {
        let mut keys = self.lock();
        while !keys.insert(key.clone()) {
            keys = self.let_go.wait(keys).unwrap_or_else(PoisonError::into_inner);
        }
        Making { held: self.clone(), key: key.clone() }
    }

    fn try_hold(self: &Arc<Self>, key: &VolumeKey) -> Option<Making> {
        self.lock().insert(key.clone()).then(|| Making { held: self.clone(), key: key.clone() })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.held.lock().remove(&self.key);
        self.held.let_go.notify_all();
    }
}

/// The names in `data` that have no record.
fn without_record<E: Serialize + DeserializeOwned>(records: &Records<E>, data: &Folder) -> Result<Vec<OsString>> {
    let failed = |error| data.failed("list", "")(error);
    let mut found = Vec::new();
    for entry in data.entries().map_err(failed)? {
        let (name, _) = entry.map_err(failed)?;
        let has_record = match key_of(&name) {
            Some(key) => records.contains(&key)?,
            None => false,
        };
        if !has_record {
            found.push(name);
        }
    }
    Ok(found)
}

fn key_of(name: &OsStr) -> Option<VolumeKey> {
    name.to_str()?.parse().ok()
}

/// Gives each entry of the folder of the data that has no record, and whose volume is not being made, to `remove`, from
/// a thread of its own, until the store is dropped. `of` tells the records of the store and the folder of its data. The
/// key is that of the entry, where its name is one.
///
/// # Errors
/// Where the system gives no thread.
pub fn sweep<S, E>(
    store: &Arc<S>,
    of: fn(&S) -> (&Records<E>, &Folder),
    remove: fn(&S, &OsStr, Option<&VolumeKey>) -> Result<()>,
) -> Result<()>
where
    S: Send + Sync + 'static,
    E: Serialize + DeserializeOwned + 'static,
{
    let store = Arc::downgrade(store);
    let work = move || -> Result<()> {
        let Some(open) = store.upgrade() else { return Ok(()) };
        let (records, data) = of(&open);
        let found = without_record(records, data)?;
        drop(open);
        for name in found {
            let Some(open) = store.upgrade() else { return Ok(()) };
            let (records, _) = of(&open);
            let key = key_of(&name);
            let Some(key) = &key else {
                remove(&open, &name, None)?;
                continue;
            };
            let Some(_held) = records.held().try_hold(key) else { continue };
            if !records.contains(key)? {
                remove(&open, &name, Some(key))?;
            }
        }
        Ok(())
    };
    let work = move || {
        if let Err(error) = work() {
            tracing::warn!(error = error.report(), "cannot remove what creates left that were cut off");
        }
    };
    let thread = std::thread::Builder::new().name("remains".into()).spawn(work);
    thread.map(drop).map_err(|error| Error::io("cannot start the thread that removes what creates left", error))
}

#[cfg(test)]
mod tests;
