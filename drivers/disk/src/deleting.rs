//! Deleting a volume: what is on its disk is proven to be the volume's, and the disk is marked as being wiped.

use std::fs::File;

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Error, Result, Volume};

use crate::content::{self, Content};
use crate::kernel::Device;
use crate::mark::Mark;
use crate::store::{Extra, Store};
use crate::wiping::{Stage, Wiping};

impl Store {
    pub(crate) fn delete_volume(&self, volume: &Volume) -> Result<()> {
        let record = self.records.get(&volume.key)?;
        let Some(record) = record.filter(|record| record.volume.generation == volume.generation) else { return Ok(()) };
        let disk = &record.extra.disk;
        let cut_off = self.wipings.of_volume(&volume.key, &volume.generation);
        let is_new = cut_off.is_none();
        let mut wiping = cut_off.unwrap_or_else(|| Wiping::new(disk.clone(), &record.volume, self.config.wipe));
        wiping.content.clone_from(&record.extra.content);
        match self.kernel.find(disk)? {
            Some(device) => self.begin(&device, &record, wiping)?,
            None => {
                tracing::warn!(
                    volume = volume.key.as_str(),
                    disk = disk.0,
                    "the disk of a volume that is deleted is not there: it is wiped when it comes back, if it is known by \
                     its file system"
                );
                if is_new {
                    self.wipings.put(&wiping)?;
                }
            }
        }
        let _change = self.change();
        self.records.remove(&volume.key)?;
        // From here on the disk is one that is to be wiped.
        self.taken().disks.remove(disk);
        self.bell.ring();
        Ok(())
    }

    /// Marks the disk of a volume that is deleted as being wiped, once it is proven that what it carries is the volume's: of
    /// a raw volume that can be known now alone.
    fn begin(&self, device: &Device, record: &Record<Extra>, mut wiping: Wiping) -> Result<()> {
        let (file, device) = self.hold(device, record)?;
        let path = self.kernel.path(&device);
        let failed = |error| Error::io(format!("cannot mark {} as being wiped", path.display()), error);
        let mark = wiping.mark(self.root.instance());
        if Mark::read(&file).map_err(failed)?.as_ref() != Some(&mark) {
            let extra = &record.extra;
            // A file system that was never seen may be what an admin has made on a disk that looked empty.
            let is_unseen = extra.mounted && extra.content.is_none();
            let is_none_known = wiping.stage != Stage::Named || !extra.used || is_unseen;
            let known = if is_none_known { Known::Nothing } else { Known::Of(extra.content.as_deref()) };
            refuse_content(&file, device.size, &record.volume, known)
                .map_err(|error| error.with("device", path.display()).with("volume", &record.volume.key))?;
            // Before the disk is written to: a volume that was cut off here is never used again.
            self.wipings.put(&wiping)?;
            mark.write(&file).map_err(failed)?;
            wiping.done = 0;
        }
        wiping.stage = Stage::Begun;
        self.wipings.put(&wiping)
    }

    /// Whether a delete was cut off behind the point of no return.
    pub(crate) fn is_being_deleted(&self, volume: &Volume) -> bool {
        self.wipings.of_volume(&volume.key, &volume.generation).is_some()
    }
}

/// What is known of the content of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// That the volume is not known to have written to it.
    Nothing,
    /// That the volume has, perhaps with this file system.
    Of(Option<&'a str>),
}

/// That what is on a disk can be what this volume has written.
///
/// # Errors
/// `FailedPrecondition` that says what is there.
pub(crate) fn refuse_content(disk: &File, size: u64, volume: &Volume, known: Known<'_>) -> Result<()> {
    let failed = |error| Error::io("cannot read the disk of the volume: see the kernel log", error);
    match Mark::read(disk).map_err(failed)? {
        Some(mark) if mark.wiping => {
            return Err(Error::precondition(format!(
                "the disk of the volume is being wiped: it was {} of instance {}, which was deleted",
                mark.volume, mark.instance
            )));
        }
        Some(mark) if !mark.is_unused(&volume.key, &volume.generation) => {
            return Err(Error::precondition(format!(
                "the disk of the volume is another volume now, {} of instance {}: it was used elsewhere",
                mark.volume, mark.instance
            )));
        }
        _ => {}
    }
    let place = match content::look(disk, size).map_err(failed)? {
        Content::Blank | Content::Marked(_) => return Ok(()),
        Content::Something(place) => place,
    };
    let wanted = match known {
        Known::Of(None) => return Ok(()),
        Known::Of(Some(wanted)) => wanted,
        Known::Nothing => {
            return Err(Error::precondition(format!(
                "the disk of the volume carries something, the first byte at {place}, which the volume is not known to have \
                 written: it was used elsewhere; save what is on it, and wipe the disk"
            )));
        }
    };
    let seen = content::file_system(disk).map_err(failed)?;
    if seen.as_deref() == Some(wanted) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "the disk of the volume has not its file system: {} was there, and now {}; it was used elsewhere: save what is on \
         it, and wipe the disk",
        wanted,
        seen.as_deref().unwrap_or("something else is")
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use dunnage_driver_api::{Bytes, VolumeKey};

    use super::*;

    const SIZE: u64 = 32 << 20;

    #[test]
    fn a_mark_of_another_volume_or_of_a_wipe_is_seen_whatever_else_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        // A raw volume, which may carry anything.
        file.write_all_at(&[7], 0).unwrap();
        let volume = Volume::new(VolumeKey::of_name("a"), "abc".parse().unwrap(), Bytes::new(SIZE));
        let refused = || refuse_content(&file, SIZE, &volume, Known::Of(None));
        refused().unwrap();
        let instance = "aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let own = Mark::new(&instance, &volume.key, &volume.generation);
        let other = Mark::new(&instance, &VolumeKey::of_name("b"), &volume.generation);
        other.write(&file).unwrap();
        assert!(refused().unwrap_err().to_string().contains("is another volume now, b"));
        own.clone().being_wiped().write(&file).unwrap();
        assert!(refused().unwrap_err().to_string().contains("is being wiped"));
        own.write(&file).unwrap();
        refused().unwrap();
        let error = refuse_content(&file, SIZE, &volume, Known::Nothing).unwrap_err().to_string();
        assert!(error.contains("the first byte at 0, which the volume is not known to have written"), "{error}");
    }
}
