//! What the copies that snapshots, restores and clones are have to know of an export.

use std::io;

use dunnage_driver_api::root::{Folder, FolderDriver, Folders, Reservation};
use dunnage_driver_api::{Bytes, CreateVolume, Error, ErrorKind, Result, VolumeKey};

use crate::export::{is_away, squash};
use crate::store::{DEFAULT_SIZE, Extra, Parts};

impl FolderDriver for Parts {
    type Extra = Extra;
    /// A file is on the server before it counts as whole, so that any machine can go on at any time.
    type Plan = Extra;

    const OVER_NETWORK: bool = true;

    fn folders(&self) -> &Folders<Extra> {
        &self.folders
    }

    fn plan(&self, request: Option<&CreateVolume>) -> Result<Extra> {
        request.map_or_else(|| Ok(Extra::default()), |request| self.wanted(request))
    }

    fn size(&self, request: &CreateVolume) -> Result<Bytes> {
        request.capacity.choose(DEFAULT_SIZE, 1)
    }

    fn reserve(&self, size: Bytes, _: Bytes) -> Result<Reservation> {
        self.reserve_room(size)
    }

    fn may_change(&self) -> Result<()> {
        if self.is_ours()? {
            return Ok(());
        }
        let place = self.root.folder().path().display();
        let message = format!("{place} was lost to another process, which goes on with the copy");
        Err(Error::new(ErrorKind::Running, message))
    }

    fn may_copy(&self) -> Result<()> {
        match squash(self.root.folder()) {
            Some((text, remedy)) => {
                Err(Error::precondition(format!("files cannot be copied with their owners: {text}; {remedy}")))
            }
            None => Ok(()),
        }
    }

    fn has_room(&self) -> Result<()> {
        self.root.sizes()?.refuse_last(Bytes::ZERO)
    }

    fn is_passing(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Running || is_away(error)
    }

    fn take(&self, key: &VolumeKey, plan: &Extra) -> Result<()> {
        self.take_place(key, plan)?;
        let path = plan.path(key);
        // Where it is what a create left it goes; where it has data it stays, and is refused.
        self.remove_empty(&path);
        self.refuse_strays(&path).inspect_err(|_| self.places.free(&path))
    }

    fn hold(&self, key: &VolumeKey, plan: &Extra) {
        self.places.hold(plan.path(key));
    }

    fn let_go(&self, key: &VolumeKey, plan: &Extra) {
        self.places.free(&plan.path(key));
    }

    fn place(&self, key: &VolumeKey, plan: &Extra) -> Result<(Folder, String)> {
        let path = plan.path(key);
        let folder = path.make_parent(&self.data).map_err(self.data.failed("make", path.to_string()))?;
        Ok((folder, path.last().to_owned()))
    }

    fn open(&self, key: &VolumeKey) -> Result<Folder> {
        let record = self.records.get(key)?.ok_or_else(|| Error::not_found(format!("there is no volume {key}")))?;
        let path = record.extra.path(key);
        path.parent(&self.data).and_then(|parent| parent.folder(path.last())).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::precondition(format!(
                "the data of volume {key} is gone: {} does not exist; if its deletion was cut off, delete it again",
                self.data.path().join(path.to_string()).display()
            )),
            _ => self.data.failed("open", path.to_string())(error),
        })
    }

    fn extra(&self, _: &Folder, _: &str, plan: &Extra) -> Result<Extra> {
        Ok(plan.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests;
