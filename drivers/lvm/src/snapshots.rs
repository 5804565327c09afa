//! Snapshots of thin volumes, and copies of them and of volumes: all are thin snapshots of LVM, which stand alone.
//!
//! LVM cuts a snapshot by suspending the volume's device, with its file system frozen by the kernel: all that was written
//! before is in it, and nobody needs to hold the volume still. A copy that is larger than its source is made with the tag of
//! what is not finished, and grown before that goes.

use dunnage_driver_api::{
    Bytes, ContentSource, Context, CreateSnapshot, CreateVolume, Error, FsType, Result, Snapshot, SnapshotKey,
    Snapshots, Volume,
};

use crate::layout::Layout;
use crate::name;
use crate::report::{Logical, Report};
use crate::store::Store;
use crate::tags::{self, Entry, Own, UNFINISHED};

impl Store {
    /// Makes a volume that holds what `content` holds.
    pub(crate) fn create_copy(&self, cx: &Context, request: &CreateVolume, content: &ContentSource) -> Result<Volume> {
        let commands = &*cx.commands;
        let report = self.reports.get(commands)?;
        let (source, fs_type) = self.source_of(&report, content)?;
        request.takes_copy_of(fs_type)?;
        let size = request.device_size(fs_type, Bytes::new(self.extent))?;
        let (volume, own) = (request.volume(size)?, Own { fs_type, layout: Layout::LINEAR });
        let name = name::of_volume(&request.key);
        self.clear(commands, &name)?;
        let room = self.reserve(commands, own.layout, size, size)?;
        let mut tags = tags::of_volume(&volume, own);
        let grows = size > content.size();
        tags.extend(grows.then(|| UNFINISHED.to_owned()));
        let mut arguments = Self::tagged(&name, &tags);
        arguments.extend(["--permission", "rw", "--type", "thin", &self.group.path(&source)].map(str::to_owned));
        self.change(commands, "lvcreate", arguments)?;
        if grows {
            let path = self.group.path(&name);
            let grown = self
                .change(commands, "lvextend", ["--size", &format!("{}b", size.get()), &path])
                .and_then(|()| self.change(commands, "lvchange", ["--deltag", UNFINISHED, &path]));
            grown.inspect_err(|_| drop(self.remove(commands, &name, UNFINISHED)))?;
        }
        room.made(&name, self.made(Entry::Volume(volume.clone(), own), size), false);
        Ok(volume)
    }

    /// The logical volume of what is to be copied, and its file system.
    fn source_of(&self, report: &Report, content: &ContentSource) -> Result<(String, FsType)> {
        let (name, found, shown) = match content {
            ContentSource::Volume(volume) => {
                let found =
                    self.volume_in(report, &volume.key)?.filter(|(_, it, _)| it.generation == volume.generation);
                (name::of_volume(&volume.key), found.map(|(.., own)| own), &volume.name)
            }
            ContentSource::Snapshot(snapshot) => {
                let found = self.snapshot_in(report, &snapshot.key)?;
                let found = found.filter(|(_, it, _)| it.generation == snapshot.generation);
                (name::of_snapshot(&snapshot.key), found.map(|(.., own)| own), &snapshot.name)
            }
        };
        found
            .map(|own| (name, own.fs_type))
            .ok_or_else(|| Error::not_found(format!("what was to be copied, {shown:?}, is gone")))
    }

    /// The snapshot of this key with what is kept beside it, in a report.
    fn snapshot_in<'a>(
        &self,
        report: &'a Report,
        key: &SnapshotKey,
    ) -> Result<Option<(&'a Logical, &'a Snapshot, Own)>> {
        match report.snapshot(key) {
            Some((_, logical @ Logical { entry: Some(Entry::Snapshot(snapshot, own)), .. })) => {
                Ok(Some((logical, snapshot, *own)))
            }
            _ => self.refuse_untagged(report, &name::of_snapshot(key)).map(|()| None),
        }
    }
}

impl Snapshots for Store {
    fn find(&self, cx: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        let report = self.reports.get(&*cx.commands)?;
        Ok(self.snapshot_in(&report, key)?.map(|(_, snapshot, _)| snapshot.clone()))
    }

    fn list(&self, cx: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let report = self.reports.get(&*cx.commands)?;
        let snapshots = report.snapshots_after(after).filter_map(|logical| match &logical.entry {
            Some(Entry::Snapshot(snapshot, _)) => Some(snapshot.clone()),
            _ => None,
        });
        Ok(snapshots.take(limit).collect())
    }

    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let commands = &*cx.commands;
        let report = self.reports.get(commands)?;
        let content = ContentSource::Volume(request.volume.clone());
        let (source, fs_type) = self.source_of(&report, &content)?;
        let name = name::of_snapshot(&request.key);
        self.clear(commands, &name)?;
        let (own, size) = (Own { fs_type, layout: Layout::LINEAR }, request.volume.capacity);
        let room = self.reserve(commands, own.layout, size, size)?;
        let snapshot = request.snapshot()?;
        let mut arguments = Self::tagged(&name, &tags::of_snapshot(&snapshot, own));
        arguments.extend(["--permission", "r", "--type", "thin", &self.group.path(&source)].map(str::to_owned));
        self.change(commands, "lvcreate", arguments).map_err(|error| error.with("volume", &request.source))?;
        room.made(&name, self.made(Entry::Snapshot(snapshot.clone(), own), size), false);
        Ok(snapshot)
    }

    fn delete(&self, cx: &Context, snapshot: &Snapshot) -> Result<()> {
        self.remove(&*cx.commands, &name::of_snapshot(&snapshot.key), &tags::of_generation(&snapshot.generation))
    }
}
