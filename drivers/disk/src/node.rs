//! The node half: the disk of a volume, proven to be it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Context, DeviceSource, Error, Identity, Node, ReleaseRecord, Result, Source, SourceRequest};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::content;
use crate::deleting::{Known, refuse_content};
use crate::identity::DiskId;
use crate::kernel::Device;
use crate::mark::Mark;
use crate::seeing::silent;
use crate::store::{Extra, LOOK, Store};

/// What is kept of a disk that is in use.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InUse {
    pub(crate) disk: DiskId,
}

/// The node half of an opened root.
pub(crate) struct DiskNode(pub(crate) Arc<Store>);

/// What is on the disk of a volume.
struct Looked {
    file: File,
    /// Whether the mark is there, which the first use takes away.
    is_marked: bool,
    file_system: Option<String>,
}

impl DiskNode {
    /// Looks at the disk of a volume, and that what is there can be what the volume has left. Ends in time, whatever the disk
    /// does.
    fn look(&self, device: &Device, record: &Record<Extra>) -> Result<Looked> {
        let (kernel, device, record) = (self.0.kernel.clone(), device.clone(), record.clone());
        let disk = record.extra.disk.clone();
        let look = move || {
            let failed =
                |error: io::Error| Error::io(format!("cannot read {}: see the kernel log", device.name), error);
            let extra = &record.extra;
            let (file, now) = kernel.open(&extra.disk, &device, OFlags::RDONLY).map_err(failed)?;
            if now.size != record.volume.capacity.get() {
                return Err(Error::precondition(format!("the size of {} has just changed", device.name)).retry(true));
            }
            // A file system is compared below, where it can be said how that is ended.
            let known = if extra.used { Known::Of(None) } else { Known::Nothing };
            refuse_content(&file, now.size, &record.volume, known)?;
            let is_marked = Mark::read(&file).map_err(failed)?.is_some();
            let file_system = content::file_system(&file).map_err(failed)?;
            Ok(Looked { file, is_marked, file_system })
        };
        self.0.questions.ask(&disk, LOOK, look)?.ok_or_else(|| silent(&disk))?
    }

    /// Has a disk used for the first time: without its mark, and nobody else's while that is taken away.
    fn begin(&self, device: &Device, record: &Record<Extra>) -> Result<()> {
        let store = &self.0;
        let (file, device) = store.hold(device, record)?;
        // Once more, now that nobody can format or mount it. The mark is there until nothing is known to be written.
        refuse_content(&file, device.size, &record.volume, Known::Nothing)?;
        store.note(&record.volume, |extra| extra.used = true)?;
        // Cut off before this, the next call does it: until then nothing was written to the disk.
        Mark::erase(&file).map_err(|error| Error::io(format!("cannot take the mark from {}", device.name), error))
    }

    /// That the file system on a disk is the one that the volume had. One that was never seen before is the volume's only
    /// where it was brought to this node in this boot: else anybody may have made it on a disk that looked empty.
    fn refuse_foreign(&self, record: &Record<Extra>, seen: Option<&str>, is_here: bool) -> Result<()> {
        match (&record.extra.content, seen) {
            (None, Some(seen)) if is_here => self.0.note(&record.volume, |extra| {
                extra.content.get_or_insert(seen.to_owned());
            }),
            (None, Some(seen)) => Err(Error::precondition(format!(
                "the disk of the volume has the file system {seen}, and it was never seen that the volume made it: if it is \
                 the volume's, as after a power cut in the first seconds of its use, see drivers/disk.md; else save what is \
                 on it, and wipe the disk"
            ))),
            (Some(known), seen) if seen != Some(known) => Err(Error::precondition(format!(
                "the disk of the volume has not its file system: {known} was there, and now {}; if it was used elsewhere, \
                 save what is on it; if the file system was made anew for this volume, see drivers/disk.md",
                seen.unwrap_or("none is")
            ))),
            _ => Ok(()),
        }
    }
}

impl Node for DiskNode {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let (store, id) = (&self.0, request.volume);
        let record = store.records.get(&id.key)?.filter(|record| record.volume.generation == id.generation);
        let record = record.ok_or_else(|| Error::not_found(format!("there is no volume {id}")))?;
        let disk = &record.extra.disk;
        if store.is_being_deleted(&record.volume) {
            return Err(
                Error::precondition("the volume is being deleted: repeat the delete to end it").with("volume", id)
            );
        }
        let device = store.device(&record)?;
        let path = store.kernel.path(&device);
        store.refuse_size(&device, &record.volume)?;
        let whose = |error: Error| error.with("device", path.display()).with("volume", id);
        let mut looked = self.look(&device, &record).map_err(whose)?;
        if !record.extra.used || looked.is_marked {
            self.begin(&device, &record).map_err(whose)?;
            let mut used = record.clone();
            used.extra.used = true;
            looked = self.look(&device, &used).map_err(whose)?;
        }
        if record.extra.mounted {
            let is_here = request.kept.is_some_and(|kept| kept.read::<InUse>().is_ok_and(|kept| kept.disk == *disk));
            self.refuse_foreign(&record, looked.file_system.as_deref(), is_here).map_err(whose)?;
            // Sees the file system that is made now.
            store.bell.ring();
        }
        let release = ReleaseRecord::new(&InUse { disk: disk.clone() })?;
        let source = DeviceSource::new(looked.file, path, Identity(format!("disk:{disk}:{id}")), release);
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
