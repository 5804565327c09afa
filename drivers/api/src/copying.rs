//! What is being copied in the background, for people to see: in the metrics and in `dunnage volumes`.

use std::fmt;
use std::str::FromStr;

use crate::capacity::Bytes;
use crate::error::{Error, Result};
use crate::id::{Generation, SnapshotKey, VolumeKey};
use crate::snapshot::SourceId;

/// Telling of the copies that a driver makes in the background.
pub trait Copying: Send + Sync {
    /// The copies that are not whole yet, in the order of their keys. Answers at once, from memory: it is asked at each
    /// scrape of the metrics.
    fn copies(&self) -> Vec<CopyProgress>;

    /// How many attempts have failed since the backend was opened. It only grows.
    fn failed_attempts(&self) -> u64;
}

/// A copy that is not whole yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CopyProgress {
    /// What it will be.
    pub target: TargetKey,
    /// The name in the request, for people to read.
    pub name: String,
    /// Which of those that bore the key.
    pub generation: Generation,
    /// What it is copied from.
    pub source: SourceId,
    /// How much of it was looked at: what is a hole counts as done when it was passed.
    pub done: Bytes,
    /// How much there is to look at.
    pub total: Bytes,
    /// The size of the volume that it will be; of a snapshot nothing.
    pub capacity: Option<Bytes>,
    /// Why the last attempt failed, until the copy gets on again.
    pub error: Option<Error>,
}

impl CopyProgress {
    /// A copy of which nothing is done.
    pub fn new(target: TargetKey, name: String, generation: Generation, source: SourceId, total: Bytes) -> Self {
        Self { target, name, generation, source, done: Bytes::ZERO, total, capacity: None, error: None }
    }

    /// How much of a hundred is done: 100 alone when all is.
    pub fn percent(&self) -> u64 {
        let (done, total) = (u128::from(self.done.get()), u128::from(self.total.get()));
        (done * 100).checked_div(total).map_or(0, |percent| percent.min(100) as u64)
    }
}

impl fmt::Display for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}, {} % of {}", self.target.kind(), self.name, self.percent(), self.total)
    }
}

/// What a copy will be. Its text is `volume.` or `snapshot.` and the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKey {
    /// A snapshot.
    Snapshot(SnapshotKey),
    /// A volume.
    Volume(VolumeKey),
}

impl TargetKey {
    /// `volume` or `snapshot`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "snapshot",
            Self::Volume(_) => "volume",
        }
    }

    /// The key alone.
    pub fn key(&self) -> &str {
        match self {
            Self::Snapshot(key) => key.as_str(),
            Self::Volume(key) => key.as_str(),
        }
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind(), self.key())
    }
}

impl FromStr for TargetKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('.') {
            Some(("snapshot", key)) => key.parse().map(Self::Snapshot),
            Some(("volume", key)) => key.parse().map(Self::Volume),
            _ => Err(Error::invalid(format!("{text:?} does not begin with `volume.` or `snapshot.`"))),
        }
    }
}
