//! A root that another process serves, seen from a machine that only uses its volumes.

use std::io;

use serde::de::DeserializeOwned;

use super::record::{LARGEST, Record, decode};
use super::{Folder, META, RECORDS, marker};
use crate::error::{Error, Result};
use crate::id::{InstanceId, VolumeKey};

/// A root that is read and not locked: proven to be ours by its marker. Nothing in it is changed by this.
pub struct RootView {
    folder: Folder,
    records: Folder,
    instance: InstanceId,
}

impl RootView {
    /// The root of `driver` that `folder` is.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where it has no marker of ours.
    pub fn open(folder: Folder, driver: &str) -> Result<Self> {
        let instance = marker::found(&folder, driver)?;
        let meta = folder.folder(META).map_err(folder.failed("open", META))?;
        let records = meta.folder(RECORDS).map_err(meta.failed("open", RECORDS))?;
        Ok(Self { folder, records, instance })
    }

    /// Which instance it is.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// The root itself.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The record of this key; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read or is broken.
    pub fn record<E: DeserializeOwned>(&self, key: &VolumeKey) -> Result<Option<Record<E>>> {
        let mut text = Vec::new();
        match self.records.read(key.as_str(), &mut text, LARGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                read.map_err(self.records.failed("read the record", key.as_str()))?;
                let (volume, extra) = decode(&text, key, self.records.path())?;
                Ok(Some(Record { volume, extra }))
            }
        }
    }

    /// Whether the marker can still be read.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn probe(&self, driver: &str) -> Result<()> {
        let instance = marker::found(&self.folder, driver)?;
        if instance == self.instance {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "root {} has become instance {instance}, and was {}: mount the right one",
            self.folder.path().display(),
            self.instance
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;

    #[test]
    fn a_root_that_is_served_is_read_beside_it() {
        let temp = tempfile::tempdir().unwrap();
        let folder = || Folder::at(temp.path()).unwrap();
        assert!(RootView::open(folder(), "nfs").is_err(), "it has no marker");
        Root::init(temp.path(), "nfs").unwrap();
        let root = Root::open(temp.path(), "nfs").unwrap();
        let view = RootView::open(folder(), "nfs").unwrap();
        assert_eq!(view.instance(), root.instance());
        let key = "pvc-1".parse().unwrap();
        assert!(view.record::<()>(&key).unwrap().is_none());
        let volume = crate::volume::Volume::new(key, crate::id::Generation::random().unwrap(), crate::Bytes::new(7));
        root.records().unwrap().put(&Record { volume: volume.clone(), extra: () }).unwrap();
        assert_eq!(view.record::<()>(&volume.key).unwrap().unwrap().volume, volume);
        view.probe("nfs").unwrap();
        assert!(RootView::open(folder(), "dir").is_err());
    }
}
