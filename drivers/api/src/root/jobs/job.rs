//! A job and its form on disk: JSON with a version and the driver's own part.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::record::LARGEST;
use crate::capacity::Bytes;
use crate::copying::{CopyProgress, TargetKey};
use crate::error::{Error, Result};
use crate::id::{Generation, SnapshotKey, VolumeKey};
use crate::snapshot::{Snapshot, SourceId};
use crate::volume::Volume;

const VERSION: u32 = 1;

/// A copy that is to be made, with the driver's own part `E`: a struct that the next release still reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job<E> {
    /// What it makes.
    pub target: Target,
    /// What it copies from.
    pub source: SourceId,
    /// How much of it is durable.
    pub done: Bytes,
    /// How much there is to do.
    pub total: Bytes,
    /// Whether all of it is there, durably. It needs its source no more then, which may change and go at once, also while
    /// the copy is not in its place yet: what was whole is never copied anew.
    pub whole: bool,
    /// What the driver keeps beside it.
    pub extra: E,
}

/// What a job makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A snapshot. It was cut, and its own record, not ready yet, says the rest.
    Snapshot {
        /// What it is found by.
        key: SnapshotKey,
        /// Its name.
        name: String,
        /// Which of those that bore the key.
        generation: Generation,
    },
    /// A volume. It has no record of its own until it is whole: this is it until then.
    Volume(Volume),
}

impl From<&Snapshot> for Target {
    fn from(snapshot: &Snapshot) -> Self {
        let Snapshot { key, name, generation, .. } = snapshot.clone();
        Self::Snapshot { key, name, generation }
    }
}

impl Target {
    /// What the job is found by.
    pub fn key(&self) -> TargetKey {
        match self {
            Self::Snapshot { key, .. } => TargetKey::Snapshot(key.clone()),
            Self::Volume(volume) => TargetKey::Volume(volume.key.clone()),
        }
    }
}

impl<E> Job<E> {
    /// A job of which nothing is done.
    pub fn new(target: Target, source: SourceId, total: Bytes, extra: E) -> Self {
        Self { target, source, done: Bytes::ZERO, total, whole: false, extra }
    }

    /// Whether it copies from this volume.
    pub(super) fn needs_volume(&self, key: &VolumeKey) -> bool {
        !self.whole && matches!(&self.source, SourceId::Volume(id) if id.key == *key)
    }

    /// Whether it copies from this snapshot.
    pub(super) fn needs_snapshot(&self, key: &SnapshotKey) -> bool {
        !self.whole && matches!(&self.source, SourceId::Snapshot(id) if id.key == *key)
    }

    /// What people see of it.
    pub(super) fn progress(&self) -> CopyProgress {
        let (name, generation, capacity) = match &self.target {
            Target::Snapshot { name, generation, .. } => (name, generation, None),
            Target::Volume(volume) => (&volume.name, &volume.generation, Some(volume.capacity)),
        };
        let (key, source) = (self.target.key(), self.source.clone());
        let mut progress = CopyProgress::new(key, name.clone(), generation.clone(), source, self.total);
        progress.capacity = capacity;
        progress
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<T, S, E> {
    version: u32,
    target: T,
    source: S,
    done: u64,
    total: u64,
    whole: bool,
    extra: E,
}

pub(super) fn encode<E: Serialize>(job: &Job<E>) -> Result<Vec<u8>> {
    let key = job.target.key();
    let Job { target, source, done, total, whole, extra } = job;
    let (version, done, total, whole) = (VERSION, done.get(), total.get(), *whole);
    let stored = Stored { version, target, source, done, total, whole, extra };
    let text = serde_json::to_vec(&stored)
        .map_err(|error| Error::internal(format!("cannot write the job {key} as JSON")).caused_by(error))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::internal(format!("the job {key} has {} bytes, at most {LARGEST} are kept", text.len())));
    }
    Ok(text)
}

/// Reads the job of `key` that lies in `folder`.
pub(super) fn decode<E: DeserializeOwned>(text: &[u8], key: &TargetKey, folder: &Path) -> Result<Job<E>> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let place = || folder.join(key.to_string());
    // A later release may have other fields; its version is still the first thing to say.
    if let Ok(Version { version }) = serde_json::from_slice(text)
        && version != VERSION
    {
        return Err(Error::precondition(format!(
            "the job {} has version {version}, this release knows {VERSION}: use the release that made it, or a later one",
            place().display()
        )));
    }
    let broken = || Error::internal(format!("the job {} is broken", place().display()));
    let stored: Stored<Target, SourceId, E> =
        serde_json::from_slice(text).map_err(|error| broken().caused_by(error))?;
    if stored.target.key() != *key {
        return Err(broken().with("target", stored.target.key()));
    }
    let Stored { target, source, done, total, whole, extra, .. } = stored;
    Ok(Job { target, source, done: Bytes::new(done), total: Bytes::new(total), whole, extra })
}
