//! Which records there are and what they say: rebuilt from the folder at every start, never written.
//!
//! It holds the volumes, without what their drivers keep beside them, in about 100 bytes each. It is filled in two steps,
//! names first, by whoever needs it first; until then changes go into it all the same and win over what the folder said.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::kept::{Fingerprints, Kept};
use super::sorted::Sorted;
use crate::capacity::Bytes;
use crate::error::Result;
use crate::id::VolumeKey;
use crate::volume::{Total, Volume};

/// The volumes of all records.
#[derive(Default)]
pub(super) struct Index {
    state: Mutex<State>,
    changed: Condvar,
    /// Held while a reservation is weighed or ended: that may ask the file system, for which nobody else waits.
    weighing: Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` where the record was not read yet, or cannot be read.
    entries: Sorted<VolumeKey, Option<Kept>>,
    fingerprints: Fingerprints,
    /// What was put or removed while the names were not there: the folder's word on these is old.
    touched: BTreeSet<VolumeKey>,
    promised: u128,
    reserved: u128,
    ready: Ready,
    loading: bool,
}

/// How far it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Ready {
    #[default]
    Nothing,
    Names,
    Volumes,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the state once it is filled as far as `wanted`. Whoever comes first fills it with `load`, which takes it
    /// one step further by `names`, or by `volume` and `volumes_complete`; the others wait. After an error the next one
    /// tries again.
    pub(super) fn ready(&self, wanted: Ready, load: impl Fn(Ready) -> Result<()>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        while state.ready < wanted {
            if state.loading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.loading = true;
            let from = state.ready;
            drop(state);
            let loading = Loading(self);
            load(from)?;
            drop(loading);
            state = self.lock();
        }
        Ok(state)
    }

    /// The state where it is filled as far as `wanted`. Never waits for that.
    pub(super) fn known(&self, wanted: Ready) -> Option<MutexGuard<'_, State>> {
        Some(self.lock()).filter(|state| state.ready >= wanted)
    }

    /// Whether somebody fills it now.
    pub(super) fn is_loading(&self) -> bool {
        self.lock().loading
    }

    /// Takes the names that the folder has.
    pub(super) fn names(&self, names: Vec<VolumeKey>) {
        let mut state = self.lock();
        let touched = std::mem::take(&mut state.touched);
        let put = std::mem::take(&mut state.entries);
        state.entries =
            names.into_iter().filter(|key| !touched.contains(key)).map(|key| (key, None)).chain(put).collect();
        state.ready = Ready::Names;
        self.changed.notify_all();
    }

    /// Takes the volume that a file describes, unless a change was faster.
    pub(super) fn volume(&self, volume: Volume) {
        let state = &mut *self.lock();
        if let Some(entry @ None) = state.entries.get_mut(&volume.key) {
            state.promised += u128::from(volume.capacity.get());
            *entry = Some(Kept::new(volume, &mut state.fingerprints));
        }
    }

    /// All records that can be read were read.
    pub(super) fn volumes_complete(&self) {
        self.lock().ready = Ready::Volumes;
        self.changed.notify_all();
    }

    /// At most `limit` keys after `after` whose record was not read yet.
    pub(super) fn unread(&self, after: Option<&VolumeKey>, limit: usize) -> Vec<VolumeKey> {
        self.lock().after(after).filter(|(_, kept)| kept.is_none()).map(|(key, _)| key.clone()).take(limit).collect()
    }

    /// A record was written, and speaks for what was `reserved`.
    pub(super) fn put(&self, volume: &Volume, reserved: Bytes) {
        let state = &mut *self.lock();
        state.reserved -= u128::from(reserved.get());
        state.promised += u128::from(volume.capacity.get());
        let kept = Kept::new(volume.clone(), &mut state.fingerprints);
        let old = state.entries.insert(volume.key.clone(), Some(kept));
        state.forget(&volume.key, old);
    }

    /// There may be a record, and what it says is not known: whoever wants it reads it.
    pub(super) fn unread_again(&self, key: &VolumeKey) {
        let mut state = self.lock();
        let old = state.entries.insert(key.clone(), None);
        state.forget(key, old);
    }

    /// A record was removed.
    pub(super) fn remove(&self, key: &VolumeKey) {
        let mut state = self.lock();
        let old = state.entries.remove(key);
        state.forget(key, old);
    }

    /// Adds to what is reserved.
    pub(super) fn reserve(&self, bytes: Bytes, fits: impl FnOnce(Bytes) -> Result<()>) -> Result<()> {
        let _weighing = self.weigh();
        fits(self.reserved())?;
        self.lock().reserve(bytes);
        Ok(())
    }

    /// The right to weigh a reservation.
    pub(super) fn weigh(&self) -> MutexGuard<'_, ()> {
        self.weighing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it away again once `work` has succeeded: nobody weighs a reservation in between.
    pub(super) fn settle<T>(&self, bytes: Bytes, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _weighing = self.weigh();
        let done = work()?;
        self.lock().reserved -= u128::from(bytes.get());
        Ok(done)
    }

    /// Takes it away again.
    pub(super) fn free(&self, bytes: Bytes) {
        self.lock().reserved -= u128::from(bytes.get());
    }

    /// What is reserved and not yet promised by a record.
    pub(super) fn reserved(&self) -> Bytes {
        Bytes::cut(self.lock().reserved)
    }
}

impl State {
    /// Keys and what is kept under them, in order.
    pub(super) fn after(&self, after: Option<&VolumeKey>) -> impl Iterator<Item = (&VolumeKey, &Option<Kept>)> {
        self.entries.after(after)
    }

    /// Whether there is a record of this key.
    pub(super) fn contains(&self, key: &VolumeKey) -> bool {
        self.entries.contains(key)
    }

    /// What all records and reservations promise together.
    pub(super) fn promised(&self) -> Bytes {
        Bytes::cut(self.promised + self.reserved)
    }

    /// How many records there are, and what they promise.
    pub(super) fn total(&self) -> Total {
        Total { volumes: self.entries.len() as u64, capacity: Bytes::cut(self.promised) }
    }

    /// Adds to what is reserved.
    pub(super) fn reserve(&mut self, bytes: Bytes) {
        self.reserved += u128::from(bytes.get());
    }

    fn forget(&mut self, key: &VolumeKey, old: Option<Option<Kept>>) {
        self.promised -= u128::from(old.flatten().map_or(0, |kept| kept.capacity.get()));
        if self.ready == Ready::Nothing {
            self.touched.insert(key.clone());
        }
    }
}

/// Lets the others go on also when filling failed or panicked.
struct Loading<'a>(&'a Index);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.lock().loading = false;
        self.0.changed.notify_all();
    }
}
