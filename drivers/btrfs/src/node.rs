//! The node half: the subvolume itself is what a pod gets.

use dunnage_driver_api::root::{Folder, Record};
use dunnage_driver_api::{Context, DirectorySource, Error, Node, Result, Source, SourceRequest, VolumeId, VolumeUsage};

use crate::store::{Extra, Store};

impl Node for Store {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let (record, subvolume) = self.opened(request.volume)?;
        if let Some(groups) = &self.groups {
            groups.ensure(&subvolume, Some(record.volume.capacity))?;
        }
        let key = request.volume.key.as_str();
        let source = DirectorySource::new(self.volumes.open_path(key)?);
        Ok(Source::Directory(source.beneath(self.parent.clone(), key)))
    }

    fn usage(&self, _: &Context, volume: &VolumeId) -> Result<Option<VolumeUsage>> {
        let Some(groups) = &self.groups else { return Ok(None) };
        let (record, subvolume) = self.opened(volume)?;
        Ok(Some(VolumeUsage::new(record.volume.capacity, groups.counted(&subvolume)?)))
    }
}

impl Store {
    fn opened(&self, volume: &VolumeId) -> Result<(Record<Extra>, Folder)> {
        let record = self.records.get(&volume.key)?.filter(|record| record.volume.generation == volume.generation);
        let record = record.ok_or_else(|| Error::not_found(format!("there is no volume {volume}")))?;
        Ok((record, self.volumes.open(volume.key.as_str())?))
    }
}
