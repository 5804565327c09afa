//! Where volumes are used on this node.

use std::path::Path;

use dunnage_driver_api::{Error, Result, StagingPath, TargetPath, VolumeId};

use super::Engine;
use super::place::{self, Place, Seen};
use super::record::{Published, Record};
use super::root::Root;

/// Where a volume is used on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uses {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is staged, or its staging was begun.
    pub staged: Option<StagingPath>,
    /// Where it is published.
    pub published: Vec<TargetPath>,
}

/// What a path of a volume shows.
pub(super) enum Use {
    /// A mount of a file system, with this root.
    FileSystem(Root),
    /// A mount of a file system that a server on the network has.
    Served(Root),
    /// A device.
    Block,
}

impl Engine {
    /// Where the volume is used. A target in a record counts only while something is mounted there.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn uses(&self, volume: &VolumeId) -> Result<Uses> {
        uses_of(&self.records.load(volume)?)
    }

    /// Whether a volume that has no record of this place need not be taken away from it, since what is mounted there is
    /// proven to be another one's.
    pub(super) fn is_place_of_another(&self, place: &Place, path: &Path) -> Result<bool> {
        let Seen::Mount(seen) = place.look()? else { return Ok(false) };
        let shows = |record: &Record| {
            let stage = record.stage.as_ref().filter(|stage| stage.path.as_path() == path);
            let staged = stage.and_then(|stage| stage.device.as_ref()?.filesystem.as_ref()).map(|mounted| mounted.root);
            let mut published = record.published.iter().filter(|(target, _)| target.as_path() == path);
            staged == Some(seen) || published.any(|(_, published)| published.root == seen)
        };
        Ok(self.records.all()?.iter().any(shows))
    }

    /// What the volume shows at a path where it is staged or published.
    ///
    /// # Errors
    /// NotFound where it is not there.
    pub(super) fn find_use(&self, record: &Record, path: &Path) -> Result<Use> {
        if let Some((_, target)) = record.published.iter().find(|(target, _)| target.as_path() == path)
            && place::is_mounted(path, target.root)?
        {
            return Ok(match target {
                target if target.asked.block => Use::Block,
                target if target.served => Use::Served(target.root),
                target => Use::FileSystem(target.root),
            });
        }
        if let Some(stage) = record.stage.as_ref().filter(|stage| stage.path.as_path() == path)
            && let Some(device) = &stage.device
        {
            match &device.filesystem {
                None => return Ok(Use::Block),
                Some(mounted) if place::is_mounted(path, mounted.root)? => return Ok(Use::FileSystem(mounted.root)),
                Some(_) => {}
            }
        }
        Err(Error::not_found(format!("volume {} is neither staged nor published at {}", record.volume, path.display())))
    }
}

/// Where the volume of a record is used.
pub(super) fn uses_of(record: &Record) -> Result<Uses> {
    Ok(Uses {
        volume: record.volume.clone(),
        staged: record.stage.as_ref().map(|stage| stage.path.clone()),
        published: published(record)?.into_iter().map(|(path, _)| path.clone()).collect(),
    })
}

/// The targets of the record at which something is mounted.
pub(super) fn published(record: &Record) -> Result<Vec<(&TargetPath, &Published)>> {
    let mut published = Vec::new();
    for (path, target) in &record.published {
        let seen = Place::find(path.as_path())?.map(|place| place.look()).transpose()?;
        if matches!(seen, Some(Seen::Mount(_) | Seen::Failed(_) | Seen::Dead)) {
            published.push((path, target));
        }
    }
    Ok(published)
}
