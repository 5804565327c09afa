//! NodeUnpublishVolume: a target is taken away.

use dunnage_driver_api::{Error, ForeignId, Result, TargetPath, VolumeId};

use super::Engine;
use super::place::Place;

impl Engine {
    /// Takes the volume away from the target, and removes what it was mounted on where that is empty. What is gone
    /// already is well so.
    ///
    /// # Errors
    /// FailedPrecondition where something else is mounted there, and where the target is in use.
    pub fn unpublish(&self, volume: &VolumeId, target: &TargetPath) -> Result<()> {
        let mut record = self.records.load(volume)?;
        let published = record.published.get(target);
        let (root, served) = (published.map(|one| one.root), published.is_some_and(|one| one.served));
        if let Some(place) = Place::find(target.as_path())?
            && (root.is_some() || !self.is_place_of_another(&place, target.as_path())?)
        {
            place.unmount_all(&self.questions, root, served)?;
            place.remove()?;
        }
        if record.published.remove(target).is_some() {
            self.settle_device(&record)?;
            // A target without a mount counts for nothing, so that a full disk keeps no pod from ending.
            if let Err(error) = self.records.store(&record) {
                let (volume_id, error) = (volume.to_string(), error.report());
                tracing::warn!(volume_id, error, "the record still names a target that is taken away");
            }
        }
        Ok(())
    }

    /// The same for an id that was never made here: nothing is done, since nothing of it can be here.
    ///
    /// # Errors
    /// FailedPrecondition where a volume of ours is published at the target.
    pub fn unpublish_foreign(&self, volume: &ForeignId, target: &TargetPath) -> Result<()> {
        match self.records.all()?.iter().find(|record| record.published.contains_key(target)) {
            Some(record) => Err(Error::precondition(format!(
                "volume {} is published at {target}, and {:?} is not its id: unpublish it by its own",
                record.volume, volume.0
            ))),
            None => Ok(()),
        }
    }
}
