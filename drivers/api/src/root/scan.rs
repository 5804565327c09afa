//! Reads the records of a root that need not be opened.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::record::{LARGEST, decode};
use super::{META, RECORDS, Record, Root, marker};
use crate::error::Result;
use crate::id::VolumeKey;

impl Root {
    /// Gives every record of the root `path` to `each`, in no order, for [`check`](crate::Driver::check) and whatever
    /// looks at all of them. Changes nothing, and may be called while the root is served: a record that is being made or
    /// removed may be left out. One that is broken is, too.
    ///
    /// # Errors
    /// Where their folder cannot be read.
    pub fn read_records<E: DeserializeOwned>(path: &Path, mut each: impl FnMut(Record<E>)) -> Result<()> {
        let meta = marker::open_folder(path)?;
        let meta = meta.folder(META).map_err(meta.failed("open", META))?;
        let folder = meta.folder(RECORDS).map_err(meta.failed("open", RECORDS))?;
        let failed = |error| folder.failed("list", "")(error);
        let mut text = Vec::new();
        for entry in folder.entries().map_err(failed)? {
            let (name, _) = entry.map_err(failed)?;
            let Some(key) = name.to_str().and_then(|name| name.parse::<VolumeKey>().ok()) else { continue };
            if folder.read(&name, &mut text, LARGEST).is_ok()
                && let Ok((volume, extra)) = decode(&text, &key, folder.path())
            {
                each(Record { volume, extra });
            }
        }
        Ok(())
    }
}
