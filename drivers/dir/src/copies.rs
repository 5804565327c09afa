//! What the copies that snapshots, restores and clones are have to know of these volumes.

use std::io;

use dunnage_driver_api::root::{Folder, FolderDriver, Folders, Reservation};
use dunnage_driver_api::{Bytes, CreateVolume, Error, ErrorKind, Result, VolumeKey};
use serde::{Deserialize, Serialize};

use crate::store::{DEFAULT_SIZE, Extra, Parts};

/// What is kept of a copy that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Whether its folder is a project.
    project: bool,
}

impl FolderDriver for Parts {
    type Extra = Extra;
    type Plan = Plan;

    const OVER_NETWORK: bool = false;

    fn folders(&self) -> &Folders<Extra> {
        &self.folders
    }

    fn plan(&self, _: Option<&CreateVolume>) -> Result<Plan> {
        Ok(Plan { project: self.quota.is_some() })
    }

    fn plan_anew(&self, plan: &Plan) -> Result<Option<Plan>> {
        Ok(Some(self.plan(None)?).filter(|now| now != plan))
    }

    fn size(&self, request: &CreateVolume) -> Result<Bytes> {
        request.capacity.choose(DEFAULT_SIZE, self.unit())
    }

    fn reserve(&self, size: Bytes, copies: Bytes) -> Result<Reservation> {
        self.reserve_volume(size, copies)
    }

    /// Without quotas nobody knows what it will take.
    fn reserve_snapshot(&self, size: Bytes, copies: Bytes) -> Result<Option<Reservation>> {
        self.quota.as_ref().map(|_| self.reserve_limited_snapshot(size, copies)).transpose()
    }

    fn used(&self, extra: &Extra) -> Result<Option<Bytes>> {
        match (&self.quota, extra.project) {
            (Some(quota), Some(project)) => quota.used(project).map(Some),
            _ => Ok(None),
        }
    }

    /// Where there are quotas it was promised.
    fn has_room(&self) -> Result<()> {
        match &self.quota {
            Some(_) => Ok(()),
            None => self.root.sizes()?.refuse_last(Bytes::ZERO),
        }
    }

    fn told(&self, error: Error, size: Bytes) -> Error {
        match (error.kind(), &self.quota) {
            (ErrorKind::ResourceExhausted, Some(_)) => error.with("quota of the copy", size),
            _ => error,
        }
    }

    fn take(&self, key: &VolumeKey, _: &Plan) -> Result<()> {
        // Where it is what a create left it goes; where it has data it stays, and is refused.
        let _ = self.remove_empty(key);
        Ok(())
    }

    fn place(&self, key: &VolumeKey, _: &Plan) -> Result<(Folder, String)> {
        let folder = self.data.reopen().map_err(self.data.failed("open", ""))?;
        Ok((folder, key.as_str().to_owned()))
    }

    fn open(&self, key: &VolumeKey) -> Result<Folder> {
        self.open_data(key)
    }

    fn prepare(&self, copy: &Folder, size: Bytes) -> Result<()> {
        self.quota.as_ref().map_or(Ok(()), |quota| quota.assign_again(copy, size))
    }

    fn extra(&self, folder: &Folder, name: &str, _: &Plan) -> Result<Extra> {
        let open = || folder.folder(name).map_err(folder.failed("open", name));
        let project = self.quota.as_ref().map(|quota| quota.of(&open()?)).transpose()?.flatten();
        Ok(Extra { project })
    }

    fn forget(&self, folder: &Folder, name: &str, known: Option<&Extra>) -> io::Result<()> {
        match known {
            Some(Extra { project: None }) => Ok(()),
            known => self.forget_project(folder, name, known.and_then(|extra| extra.project)),
        }
    }
}

#[cfg(test)]
mod tests;
