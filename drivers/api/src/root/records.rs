//! What is kept of each volume: one small JSON file, `<root>/.dunnage/volumes/<key>`.
//!
//! A record is written whole beside its place, made durable, renamed into place, and the folder made durable: at any
//! moment of a power cut there is the old record, or the new one, or none. It is the commit point of a volume: what
//! lies in the root without one is not a volume. A file of a cut-off write has a name that no key can have; the next
//! start removes it. What a killed process renamed but did not sync is synced when the root is opened, before any
//! answer can rest on it; and where a sync failed no volume is found, listed or missed until another one has succeeded.
//! Only the sums (`promised`, `total`) do not wait for that: what they are ahead of the disk by is promised already.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::folder::Folder;
use super::index::{Index, Ready};
use super::kept::Kept;
use super::record::{LARGEST, Record, decode, encode};
use super::remains::{Held, Making};
use super::syncs::Syncs;
use super::{Lock, nonce};
use crate::capacity::Bytes;
use crate::error::{Error, Result};
use crate::id::VolumeKey;
use crate::volume::{Total, Volume};

/// The records of a root. `E` is the driver's own part: a struct that the next release still reads.
///
/// Calls for one key must not run at once (the host's locks see to it); calls for different keys may.
pub struct Records<E> {
    inner: Arc<Inner>,
    extra: PhantomData<fn() -> E>,
}

struct Inner {
    folder: Folder,
    syncs: Syncs,
    index: Index,
    held: Arc<Held>,
    /// Tells this process's unfinished files from those of one that was killed.
    temporary: String,
    stop: AtomicBool,
    _lock: Lock,
}

/// Room that is spoken for until this is dropped: hold it until the record is written.
#[must_use]
pub struct Reservation {
    inner: Arc<Inner>,
    bytes: Bytes,
}

impl Reservation {
    /// Has `work` make the room count as taken by itself, as the limit of a quota does, and ends in the same moment for
    /// whoever weighs another reservation: the room is never counted twice, nor by nobody. `work` is called under a lock:
    /// it may change the file system, not these records.
    ///
    /// # Errors
    /// Those of `work`; the room is then free again.
    pub fn settle<T>(mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = self.inner.index.settle(self.bytes, work)?;
        self.bytes = Bytes::ZERO;
        Ok(done)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.index.free(self.bytes);
    }
}

impl<E> Drop for Records<E> {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
    }
}

impl<E: Serialize + DeserializeOwned> Records<E> {
    /// The records in `folder`; begins to fill the index in the background.
    pub(super) fn new(folder: Folder, lock: Lock) -> Result<Self> {
        folder.sync().map_err(folder.failed("sync", ""))?;
        let inner = Arc::new(Inner {
            folder,
            syncs: Syncs::default(),
            index: Index::default(),
            held: Arc::default(),
            temporary: format!(".{}.", nonce()?),
            stop: AtomicBool::new(false),
            _lock: lock,
        });
        inner.fill()?;
        Ok(Self { inner, extra: PhantomData })
    }

    /// The record of this key; `None` where there is none. Never waits for the index.
    ///
    /// # Errors
    /// Where it cannot be read or is broken: it names the file. Only a missing file means that there is no volume. Where
    /// a record could not be made durable and still cannot.
    pub fn get(&self, key: &VolumeKey) -> Result<Option<Record<E>>> {
        self.inner.settle()?;
        Ok(self.inner.read(key, &mut Vec::new())?.map(|(volume, extra)| Record { volume, extra }))
    }

    /// Whether there is a record of this key, without reading it. Waits until the names are known.
    ///
    /// # Errors
    /// Where the folder cannot be read, or what is in it could not be made durable and still cannot.
    pub fn contains(&self, key: &VolumeKey) -> Result<bool> {
        self.inner.settle()?;
        Ok(self.inner.index.ready(Ready::Names, |from| self.inner.load(from))?.contains(key))
    }

    /// Whether there is no record at all, not even one that cannot be read. Waits until the names are known.
    ///
    /// # Errors
    /// Those of [`contains`](Self::contains).
    pub fn is_empty(&self) -> Result<bool> {
        self.inner.settle()?;
        Ok(self.inner.index.ready(Ready::Names, |from| self.inner.load(from))?.after(None).next().is_none())
    }

    /// Holds the key of a volume that is about to be made, so that what there is of it is not taken for what a create left
    /// that was cut off, and [removed](super::sweep). Where that is being removed just now it waits for the end of that.
    pub fn making(&self, key: &VolumeKey) -> Making {
        self.inner.held.hold(key)
    }

    pub(super) fn held(&self) -> &Arc<Held> {
        &self.inner.held
    }

    /// Writes a record, over the one that is there; durable when it returns.
    ///
    /// # Errors
    /// Where it cannot be written: the one that was there is there still, or the new one is.
    pub fn put(&self, record: &Record<E>) -> Result<()> {
        self.write(record, None)
    }

    /// As [`put`](Self::put); from then on the record speaks for what `room`, a reservation of these records, spoke for.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_for(&self, record: &Record<E>, room: Reservation) -> Result<()> {
        self.write(record, Some(room))
    }

    fn write(&self, record: &Record<E>, room: Option<Reservation>) -> Result<()> {
        self.inner.settle()?;
        let (folder, key) = (&self.inner.folder, &record.volume.key);
        let text = encode(record)?;
        let temporary = format!("{}{key}", self.inner.temporary);
        let failed = |error| folder.failed("write the record", key.as_str())(error);
        folder.write(&temporary, &text).map_err(failed)?;
        if let Err(error) = folder.rename(&temporary, folder, key.as_str()) {
            // Where this fails too, the next start removes it.
            let _ = folder.unlink(&temporary);
            self.inner.doubt(key);
            return Err(failed(error));
        }
        let mut room = room.filter(|room| Arc::ptr_eq(&room.inner, &self.inner));
        let reserved = room.as_mut().map_or(Bytes::ZERO, |room| std::mem::replace(&mut room.bytes, Bytes::ZERO));
        self.inner.index.put(&record.volume, reserved);
        self.inner.syncs.sync(folder).map_err(failed)
    }

    /// Removes a record; durable when it returns. Succeeds where there is none.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, key: &VolumeKey) -> Result<()> {
        self.inner.settle()?;
        let folder = &self.inner.folder;
        let failed = |error| folder.failed("remove the record", key.as_str())(error);
        match folder.unlink(key.as_str()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.inner.doubt(key);
                return Err(failed(error));
            }
            _ => self.inner.index.remove(key),
        }
        self.inner.syncs.sync(folder).map_err(failed)
    }

    /// At most `limit` volumes in the order of their keys, beginning after `after`; fewer mean that there are no more.
    /// A broken record is left out and logged: it must not hide the others. Waits until the names are known.
    ///
    /// The first is read from its file, the others only where that was not done before: a store that does not answer is
    /// found by every list, and a long one costs no file for each volume.
    ///
    /// # Errors
    /// Those of [`contains`](Self::contains).
    pub fn page(&self, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        let inner = &self.inner;
        inner.settle()?;
        let mut page = Vec::with_capacity(limit.min(1000));
        let mut buffer = Vec::new();
        let mut last = after.cloned();
        while page.len() < limit {
            let state = inner.index.ready(Ready::Names, |from| inner.load(from))?;
            let wanted = (limit - page.len()).min(1000);
            let found =
                |(key, kept): (&VolumeKey, &Option<Kept>)| (key.clone(), kept.as_ref().map(|kept| kept.volume(key)));
            let entries: Vec<_> = state.after(last.as_ref()).map(found).take(wanted).collect();
            drop(state);
            match entries.last() {
                Some((key, _)) => last = Some(key.clone()),
                None => break,
            }
            for (key, kept) in entries {
                let volume = match kept.filter(|_| !page.is_empty()) {
                    Some(volume) => Ok(Some(volume)),
                    None => inner.read::<IgnoredAny>(&key, &mut buffer).map(|found| found.map(|(volume, _)| volume)),
                };
                match volume {
                    Ok(volume) => page.extend(volume),
                    Err(error) => tracing::warn!(key = key.as_str(), error = error.report(), "a volume is not listed"),
                }
            }
        }
        Ok(page)
    }

    /// Gives every record to `each`, in the order of their keys, or why it cannot be read. Waits until the names are known,
    /// and reads every file.
    ///
    /// # Errors
    /// Those of [`contains`](Self::contains), and those of `each`, which end it.
    pub fn each(&self, mut each: impl FnMut(&VolumeKey, Result<Record<E>>) -> Result<()>) -> Result<()> {
        self.inner.settle()?;
        let state = self.inner.index.ready(Ready::Names, |from| self.inner.load(from))?;
        let keys: Vec<VolumeKey> = state.after(None).map(|(key, _)| key.clone()).collect();
        drop(state);
        for key in keys {
            if let Some(record) = self.get(&key).transpose() {
                each(&key, record)?;
            }
        }
        Ok(())
    }

    /// The sum of the capacities of all volumes and of what is reserved. Waits until all records were read.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn promised(&self) -> Result<Bytes> {
        Ok(self.inner.index.ready(Ready::Volumes, |from| self.inner.load(from))?.promised())
    }

    /// How many records there are and what they promise together; `None` until all records were read, which goes on in
    /// the background. Never waits for that.
    pub fn total(&self) -> Option<Total> {
        let total = self.inner.index.known(Ready::Volumes).map(|state| state.total());
        if total.is_none() && !self.inner.index.is_loading() {
            // It failed before. Where there is no thread now, the next call tries again.
            let _ = self.inner.fill();
        }
        total
    }

    /// What is reserved for volumes that are being made or grown. Never waits for the index.
    pub fn reserved(&self) -> Bytes {
        self.inner.index.reserved()
    }

    /// Speaks for `bytes` if `fits` allows it, which is told what is promised and reserved already. No two reservations
    /// are weighed at once, so that together they never promise what each alone may. `fits` is called under a lock: it
    /// may look at the file system, not at these records.
    ///
    /// # Errors
    /// Those of `fits`, and of [`promised`](Self::promised).
    pub fn reserve(&self, bytes: Bytes, fits: impl FnOnce(Bytes) -> Result<()>) -> Result<Reservation> {
        let _weighing = self.inner.index.weigh();
        let mut state = self.inner.index.ready(Ready::Volumes, |from| self.inner.load(from))?;
        fits(state.promised())?;
        state.reserve(bytes);
        Ok(Reservation { inner: self.inner.clone(), bytes })
    }

    /// As [`reserve`](Self::reserve), for a store where volumes promise nothing: `fits` is told what is reserved
    /// alone, and nothing waits for the index.
    ///
    /// # Errors
    /// Those of `fits`.
    pub fn reserve_unpromised(&self, bytes: Bytes, fits: impl FnOnce(Bytes) -> Result<()>) -> Result<Reservation> {
        self.inner.index.reserve(bytes, fits)?;
        Ok(Reservation { inner: self.inner.clone(), bytes })
    }
}

impl Inner {
    /// Begins to fill the index in the background.
    fn fill(self: &Arc<Self>) -> Result<()> {
        let filler = self.clone();
        let fill = move || {
            // Whoever needs the index tries again, and is told.
            if let Err(error) = filler.index.ready(Ready::Volumes, |from| filler.load(from)).map(drop)
                && !filler.stop.load(Ordering::Relaxed)
            {
                tracing::warn!(error = error.report(), "cannot read the records of the volumes yet");
            }
        };
        let thread = std::thread::Builder::new().name("records".into()).spawn(fill);
        thread.map(drop).map_err(|error| Error::io("cannot start the thread that reads the records", error))
    }

    /// What failed may have been done all the same: it is not durable, and only the folder knows.
    fn doubt(&self, key: &VolumeKey) {
        self.syncs.doubt();
        match self.read::<IgnoredAny>(key, &mut Vec::new()) {
            Ok(Some((volume, _))) => self.index.put(&volume, Bytes::ZERO),
            Ok(None) => self.index.remove(key),
            Err(_) => self.index.unread_again(key),
        }
    }

    fn settle(&self) -> Result<()> {
        self.syncs.settle(&self.folder).map_err(self.folder.failed("make durable what is in", ""))
    }

    fn read<E: DeserializeOwned>(&self, key: &VolumeKey, buffer: &mut Vec<u8>) -> Result<Option<(Volume, E)>> {
        match self.folder.read(key.as_str(), buffer, LARGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                read.map_err(self.folder.failed("read the record", key.as_str()))?;
                decode(buffer, key, self.folder.path()).map(Some)
            }
        }
    }

    /// Fills the index by one step.
    fn load(&self, from: Ready) -> Result<()> {
        if from == Ready::Nothing {
            self.index.names(self.names()?);
            return Ok(());
        }
        let (mut last, mut buffer) = (None, Vec::new());
        loop {
            let keys = self.index.unread(last.as_ref(), 1000);
            for key in &keys {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::internal("stopped reading the records: the backend is being closed"));
                }
                match self.read::<IgnoredAny>(key, &mut buffer) {
                    Ok(Some((volume, _))) => self.index.volume(volume),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(key = key.as_str(), error = error.report(), "a volume's size is not counted");
                    }
                }
            }
            match keys.into_iter().next_back() {
                Some(key) => last = Some(key),
                None => break,
            }
        }
        self.index.volumes_complete();
        Ok(())
    }

    fn names(&self) -> Result<Vec<VolumeKey>> {
        let failed = |error| self.folder.failed("list", "")(error);
        let mut names = Vec::new();
        for entry in self.folder.entries().map_err(failed)? {
            let (name, _) = entry.map_err(failed)?;
            match name.to_str().map(str::parse) {
                Some(Ok(key)) => names.push(key),
                Some(Err(_)) if name.to_string_lossy().starts_with(&self.temporary) => {}
                _ if name.as_encoded_bytes().starts_with(b".") => {
                    // Best effort: the next start tries again.
                    let _ = self.folder.unlink(&name);
                }
                _ => tracing::warn!(?name, "a file among the records is not a record"),
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests;
