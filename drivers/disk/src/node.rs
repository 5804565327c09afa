//! The node half: the disk of a volume, proven to be it.

use std::sync::Arc;

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Context, DeviceSource, Error, Identity, Node, ReleaseRecord, Result, Source, SourceRequest};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::content;
use crate::kernel::{Device, DiskId};
use crate::mark::Mark;
use crate::store::{Extra, Known, Store, refuse_content};

/// What is kept of a disk that is in use. There is nothing to undo: the disk stays where it is.
#[derive(Debug, Serialize, Deserialize)]
struct InUse {
    disk: DiskId,
}

/// The node half of an opened root.
pub(crate) struct DiskNode(pub(crate) Arc<Store>);

impl DiskNode {
    /// That what is on the disk is what the volume has left there, and that the mark is gone which the disk had until now.
    fn settle(&self, device: &Device, file: &std::fs::File, record: &mut Record<Extra>) -> Result<()> {
        let store = &self.0;
        let failed = |error| Error::io(format!("cannot read {}: see the kernel log", device.name), error);
        if !record.extra.used {
            refuse_content(file, device.size, &record.volume, Known::Nothing)?;
            record.extra.used = true;
            store.records.put(record)?;
        }
        let is_ours = |mark: Mark| mark.volume == record.volume.key && mark.generation == record.volume.generation;
        if Mark::read(file).map_err(failed)?.is_some_and(is_ours) {
            // Cut off before this, the next call does it: until then nothing was written to the disk.
            let writable = store.kernel.open(device, OFlags::RDWR).map_err(failed)?;
            Mark::erase(&writable)
                .map_err(|error| Error::io(format!("cannot take the mark from {}", device.name), error))?;
        }
        if !record.extra.mounted {
            return Ok(());
        }
        let seen = content::file_system(file).map_err(failed)?;
        match (&record.extra.content, seen) {
            (None, Some(seen)) => {
                record.extra.content = Some(seen);
                store.records.put(record)
            }
            (Some(known), seen) if seen.as_ref() != Some(known) => Err(Error::precondition(format!(
                "the disk of the volume has not its file system: {known} was there, and now {}; if it was used elsewhere, \
                 save what is on it; if the file system was made anew for this volume, see drivers/disk.md",
                seen.as_deref().unwrap_or("none is")
            ))),
            _ => Ok(()),
        }
    }
}

impl Node for DiskNode {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let (store, id) = (&self.0, request.volume);
        let _change = store.change();
        let record = store.records.get(&id.key)?.filter(|record| record.volume.generation == id.generation);
        let mut record = record.ok_or_else(|| Error::not_found(format!("there is no volume {id}")))?;
        if store.is_being_deleted(&record.volume) {
            return Err(
                Error::precondition("the volume is being deleted: repeat the delete to end it").with("volume", id)
            );
        }
        let device = store.device(&record)?;
        let path = store.kernel.path(&device);
        if device.size < record.volume.capacity.get() {
            return Err(Error::precondition(format!(
                "{} has {} bytes and its volume {}: the disk or the partition was made smaller; make it as large again",
                path.display(),
                device.size,
                record.volume.capacity.get()
            )));
        }
        let file = store
            .kernel
            .open(&device, OFlags::RDONLY)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        self.settle(&device, &file, &mut record)
            .map_err(|error| error.with("device", path.display()).with("volume", id))?;
        let release = ReleaseRecord::new(&InUse { disk: record.extra.disk.clone() })?;
        let source = DeviceSource::new(file, path, Identity(format!("disk:{}:{id}", record.extra.disk)), release);
        Ok(Source::Device(source.with_default_fs_type(record.extra.fs_type)))
    }

    fn refresh(&self, _: &Context, record: &ReleaseRecord) -> Result<()> {
        let InUse { disk } = record.read()?;
        match self.0.kernel.find(&disk)? {
            // The kernel has its size already: that of the volume was taken from it.
            Some(_) => Ok(()),
            None => Err(Error::precondition(format!("the disk {disk} of the volume is not on this node: put it back"))),
        }
    }
}
