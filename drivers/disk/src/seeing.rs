//! What volumes have left on their disks: seen while they are mounted, and when their last mount goes.

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Error, ErrorKind, Result};
use rustix::fs::OFlags;

use crate::content::{self, Content};
use crate::identity::DiskId;
use crate::kernel::{Device, Kernel};
use crate::mark::Mark;
use crate::store::{Extra, LOOK, Store};

impl Store {
    /// Notes the file system of each volume of which it is not known and that is in use now; `false` where there are some of
    /// which it is not known after that.
    pub(crate) fn see_contents(&self) -> bool {
        let mut unknown = Vec::new();
        let each = self.records.each(|_, record| {
            // The one that cannot be read is told of when the root is opened, and keeps every disk from being taken.
            unknown.extend(
                record
                    .ok()
                    .filter(|record| record.extra.used && record.extra.mounted && record.extra.content.is_none()),
            );
            Ok(())
        });
        let mut all_known = true;
        if let Err(error) = each {
            tracing::debug!(error = error.report(), "the file systems of volumes are not known yet");
        }
        for record in unknown {
            let seen = self.see_content(&record);
            all_known &= matches!(seen, Ok(true));
            if let Err(error) = seen {
                let volume = record.volume.key.as_str();
                tracing::debug!(volume, error = error.report(), "the file system of a volume is not known yet");
            }
        }
        all_known
    }

    /// Only what is mounted is noted: what is on a disk that nobody has mounted may be what an admin has made there.
    fn see_content(&self, record: &Record<Extra>) -> Result<bool> {
        let disk = &record.extra.disk;
        let (kernel, id) = (self.kernel.clone(), disk.clone());
        let look = move || match kernel.find(&id)? {
            Some(device) => content_mounted(&kernel, &id, &device)
                .map_err(|error| Error::io("cannot read the disk of a volume", error)),
            None => Ok(None),
        };
        let seen = self.questions.ask(disk, LOOK, look)?.ok_or_else(|| silent(disk))?;
        let Some(content) = seen? else { return Ok(false) };
        self.note(&record.volume, |extra| {
            extra.content.get_or_insert(content);
        })?;
        Ok(true)
    }

    /// Notes what a volume has left on its disk, when its last mount is gone. Where that is nothing the disk gets its mark
    /// back: as it is nothing else tells it from one that is free.
    ///
    /// # Errors
    /// Where that cannot be known: it is not noted then.
    pub(crate) fn leave(&self, disk: &DiskId) -> Result<()> {
        let Some(key) = self.taken().disks.get(disk).cloned() else { return Ok(()) };
        let Some(record) = self.records.get(&key)?.filter(|record| record.extra.disk == *disk) else { return Ok(()) };
        if !record.extra.used || record.extra.content.is_some() || self.is_being_deleted(&record.volume) {
            return Ok(());
        }
        let device = self.device(&record)?;
        let (file, device) = self.hold(&device, &record)?;
        let failed = |error| Error::io("cannot read the disk of a volume", error);
        if content::look(&file, device.size).map_err(failed)? == Content::Blank {
            let mark = Mark::new(self.root.instance(), &record.volume.key, &record.volume.generation);
            mark.write(&file).map_err(|error| Error::io("cannot mark the disk of a volume", error))?;
            // Cut off before this, the next use takes the mark away all the same.
            return self.note(&record.volume, |extra| extra.used = false);
        }
        let content = content::file_system(&file).map_err(failed)?.filter(|_| record.extra.mounted);
        match content {
            Some(content) => self.note(&record.volume, |extra| {
                extra.content.get_or_insert(content);
            }),
            None => Ok(()),
        }
    }
}

/// The file system of a disk that is mounted; `None` where it is not.
fn content_mounted(kernel: &Kernel, id: &DiskId, device: &Device) -> std::io::Result<Option<String>> {
    let (file, now) = kernel.open(id, device, OFlags::RDONLY)?;
    if !kernel.is_mounted(&now)? {
        return Ok(None);
    }
    content::file_system(&file)
}

/// A disk that has not answered in time.
pub(crate) fn silent(disk: &DiskId) -> Error {
    let message = format!("the disk {disk} does not answer: see the kernel log, and its cables");
    Error::new(ErrorKind::Internal, message).retry(true)
}
