//! The form of a record on disk: JSON with a version, that of the volume, and the driver's own part.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::VolumeKey;
use crate::volume::Volume;

const VERSION: u32 = 1;

/// The greatest size of a record in bytes: a volume, of which the context is the largest part (4 KiB), and a driver's
/// few fields.
pub(super) const LARGEST: u64 = 256 << 10;

/// What is kept of a volume: what the host asked to keep, and the driver's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<E> {
    /// The volume.
    pub volume: Volume,
    /// What the driver keeps beside it.
    pub extra: E,
}

#[derive(Serialize, Deserialize)]
struct Stored<V, E> {
    version: u32,
    volume: V,
    extra: E,
}

pub(super) fn encode<E: Serialize>(record: &Record<E>) -> Result<Vec<u8>> {
    let key = &record.volume.key;
    let text = serde_json::to_vec(&Stored { version: VERSION, volume: &record.volume, extra: &record.extra })
        .map_err(|error| Error::internal(format!("cannot write the record of {key} as JSON")).caused_by(error))?;
    if text.len() as u64 > LARGEST {
        let message = format!("the record of {key} has {} bytes, at most {LARGEST} are kept", text.len());
        return Err(Error::internal(message));
    }
    Ok(text)
}

/// Reads the record of `key` that lies at `folder`.
pub(super) fn decode<E: DeserializeOwned>(text: &[u8], key: &VolumeKey, folder: &Path) -> Result<(Volume, E)> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let place = || folder.join(key.as_str());
    let stored = serde_json::from_slice::<Stored<Volume, E>>(text);
    let version = match &stored {
        Ok(stored) => Ok(stored.version),
        // A later release may have other fields; its version is still the first thing to say.
        Err(_) => serde_json::from_slice(text).map(|Version { version }| version),
    };
    if let Ok(version) = version
        && version != VERSION
    {
        return Err(Error::precondition(format!(
            "the record {} has version {version}, this release knows {VERSION}: use the release that made it, or a \
             later one",
            place().display()
        )));
    }
    let stored = stored.map_err(|error| {
        Error::internal(format!("the record {} is broken: restore it from a backup", place().display()))
            .caused_by(error)
    })?;
    if stored.volume.key != *key {
        return Err(Error::internal(format!(
            "the record {} is that of another volume, {}: restore it from a backup",
            place().display(),
            stored.volume.key
        )));
    }
    Ok((stored.volume, stored.extra))
}
