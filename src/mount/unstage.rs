//! NodeUnstageVolume: a volume leaves this node.

use std::time::{Duration, Instant};

use dunnage_driver_api::{Context, Error, Result, StagingPath, VolumeId};

use super::format::Intent;
use super::place::Place;
use super::record::{Record, Stage};
use super::request::Release;
use super::uses::published;
use super::{Engine, sys};

/// How long a file system may take to end after its last unmount: it writes out what it holds.
const SUPERBLOCK: Duration = Duration::from_secs(60);

impl Engine {
    /// Unmounts the volume and gives its device back, from the record alone. What is gone already is well so.
    ///
    /// # Errors
    /// FailedPrecondition where the volume is still published on this node, where something else is mounted at the path,
    /// and where the device is still in use: a file system on a device is never detached while somebody uses it.
    pub fn unstage(&self, cx: &Context, release: Release<'_>, volume: &VolumeId, path: &StagingPath) -> Result<()> {
        let record = self.records.load(volume)?;
        match &record.stage {
            Some(stage) if stage.path == *path => {
                let stage = stage.clone();
                self.end_stage(cx, release, record, &stage)
            }
            _ => match Place::find(path.as_path())? {
                Some(place) if !self.is_place_of_another(&place, path.as_path())? => {
                    place.unmount_all(&self.questions, None, false)
                }
                _ => Ok(()),
            },
        }
    }

    /// Unstages the volume wherever it is staged, for a volume that is to be deleted: some orchestrators never unstage.
    ///
    /// # Errors
    /// As [`unstage`](Self::unstage).
    pub fn unstage_all(&self, cx: &Context, release: Release<'_>, volume: &VolumeId) -> Result<()> {
        let record = self.records.load(volume)?;
        self.refuse_published(&record)?;
        if let Some(stage) = record.stage.clone() {
            self.end_stage(cx, release, record, &stage)?;
        }
        Ok(())
    }

    /// Forgets of a volume that is to be deleted that its device was being formatted: a stage that was cut off there and
    /// never repeated leaves that behind.
    ///
    /// # Errors
    /// FailedPrecondition where a program still formats it; where the file cannot be removed.
    pub fn forget(&self, cx: &Context, volume: &VolumeId) -> Result<()> {
        Intent::settled(&self.folder, volume, cx.deadline)?.remove()
    }

    /// Unmounts a stage and gives its device back.
    pub(super) fn end_stage(
        &self,
        cx: &Context,
        release: Release<'_>,
        mut record: Record,
        stage: &Stage,
    ) -> Result<()> {
        self.refuse_published(&record)?;
        // A host that was killed may have left a program that formats the device.
        Intent::settled(&self.folder, &record.volume, cx.deadline)?;
        let root = stage.device.as_ref().and_then(|device| device.filesystem.as_ref()).map(|mounted| mounted.root);
        let place = Place::find(stage.path.as_path())?;
        if let Some(place) = &place {
            place.unmount_all(&self.questions, root, false)?;
        }
        if let Some(device) = &stage.device {
            let until = cx.deadline.min(Instant::now() + SUPERBLOCK);
            device.number.wait_until_free(&device.path, until)?;
        }
        // A flag of a read-only publish would stay on the device for whoever gets it next.
        record.published.clear();
        self.settle_device(&record)?;
        if let Some(device) = stage.device.as_ref().filter(|device| device.made_read_only && device.number.exists()) {
            let failed = |error| Error::io(format!("cannot make {} writable again", device.path.display()), error);
            if let Some(opened) = device.number.open(&device.path, false).map_err(|error| failed(error.into()))? {
                sys::set_device_read_only(opened, false).map_err(failed)?;
            }
        }
        release(cx, &stage.release)?;
        if let Some(place) = place.filter(|_| stage.made) {
            place.remove()?;
        }
        record.stage = None;
        self.records.store(&record)
    }

    fn refuse_published(&self, record: &Record) -> Result<()> {
        match published(record)?.first() {
            Some((target, _)) => Err(Error::precondition(format!(
                "volume {} is published at {target} on this node: unpublish it first",
                record.volume
            ))),
            None => Ok(()),
        }
    }
}
