//! Snapshots of several volumes at one moment.
//!
//! The record of the group is written first, as of one that is not whole, and written again when all members are there.
//! Until then no member is found, and whoever opens the root, or makes the group again, takes them away. A group goes the
//! same way back.

use dunnage_driver_api::root::{GroupRecord, SnapshotRecord};
use dunnage_driver_api::{
    Context, CreateGroupSnapshot, Error, GroupSnapshot, Groups, InUse, Result, Snapshot, SnapshotKey, TargetKey,
    VolumeId,
};

use crate::copies::{STILL, refuse_data, share};
use crate::image_file;
use crate::store::Store;

impl Store {
    /// Takes away what is left of groups that are not whole.
    ///
    /// # Errors
    /// Where the store cannot be read or changed.
    pub(crate) fn finish_groups(&self) -> Result<()> {
        self.groups.cut_off()?.iter().try_for_each(|group| self.undo(group))
    }

    /// Whether the snapshot is there: a member is there with its whole group alone.
    ///
    /// # Errors
    /// Where the record of its group cannot be read.
    pub(crate) fn is_there(&self, snapshot: &Snapshot) -> Result<bool> {
        let Some(id) = &snapshot.group else { return Ok(true) };
        let group = self.groups.get(&id.key)?;
        Ok(group.is_some_and(|group| group.whole && group.generation == id.generation))
    }

    /// Removes the members of a group that is not whole, and last its record.
    fn undo(&self, group: &GroupRecord) -> Result<()> {
        for key in &group.members {
            self.remove_unfinished(self.place(&TargetKey::Snapshot(key.clone())))?;
            self.root.trash().discard(&self.snapshots, key.as_str())?;
            self.snapshot_records.remove(key)?;
        }
        self.groups.remove(&group.key)
    }

    /// Cuts all members while none of them can be written.
    fn cut_together(&self, cx: &Context, request: &CreateGroupSnapshot) -> Result<()> {
        let mut pairs = Vec::new();
        for member in &request.members {
            let key = &member.volume.key;
            let image = image_file::open(&self.images, key);
            let image = image.map_err(self.images.failed("open the image", key.as_str()))?;
            pairs.push((image, self.begin(self.place(&TargetKey::Snapshot(member.key.clone())))?));
        }
        let volumes: Vec<VolumeId> = request.members.iter().map(|member| member.source.clone()).collect();
        let held = cx.hold(&volumes, STILL)?;
        if let Some((volume, _)) = volumes.iter().zip(held.uses()).find(|(_, used)| **used == InUse::Writable) {
            return Err(Error::precondition(
                "a raw block volume in use cannot be held still, so it cannot be in a group: unpublish it first, or take \
                 a snapshot of it alone",
            )
            .with("volume", volume));
        }
        pairs.iter().try_for_each(|(image, copy)| share(image, copy)).and(held.let_go())?;
        for (member, (_, copy)) in request.members.iter().zip(&pairs) {
            self.make_durable(copy, self.place(&TargetKey::Snapshot(member.key.clone())))?;
        }
        Ok(())
    }
}

fn record(group: &GroupSnapshot, whole: bool) -> GroupRecord {
    GroupRecord {
        key: group.key.clone(),
        name: group.name.clone(),
        generation: group.generation.clone(),
        fingerprint: group.fingerprint.clone(),
        created: group.created,
        members: group.snapshots.iter().map(|snapshot| snapshot.key.clone()).collect(),
        whole,
    }
}

impl Groups for Store {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<GroupSnapshot>> {
        let Some(found) = self.groups.get(key)?.filter(|group| group.whole) else { return Ok(None) };
        let mut snapshots = Vec::new();
        for member in &found.members {
            let record = self.snapshot_records.get(member)?;
            let missing = || Error::internal(format!("group {:?} has lost its member {member}", found.name));
            snapshots.push(record.ok_or_else(missing)?.snapshot);
        }
        let mut group = GroupSnapshot::new(found.key, found.generation, snapshots);
        (group.name, group.fingerprint, group.created) = (found.name, found.fingerprint, found.created);
        Ok(Some(group))
    }

    fn create(&self, cx: &Context, request: &CreateGroupSnapshot) -> Result<GroupSnapshot> {
        if let Some(remains) = self.groups.get(&request.key)? {
            self.undo(&remains)?;
        }
        for member in &request.members {
            refuse_data(&self.snapshots, member.key.as_str())?;
        }
        let _room = request.members.iter().map(|member| self.reserve_snapshot(member.volume.capacity));
        let _room: Vec<_> = _room.collect::<Result<_>>()?;
        let group = request.group(self.root.instance())?;
        self.groups.put(record(&group, false))?;
        let made = self.cut_together(cx, request).and_then(|()| {
            for (member, snapshot) in request.members.iter().zip(&group.snapshots) {
                let extra = self.extra_of(&dunnage_driver_api::ContentSource::Volume(member.volume.clone()))?;
                self.snapshot_records.put(SnapshotRecord { snapshot: snapshot.clone(), extra })?;
                self.put_in_place(self.place(&TargetKey::Snapshot(member.key.clone())))?;
            }
            self.groups.put(record(&group, true))
        });
        if let Err(error) = made {
            // Where this fails too, the next attempt or the next start does it.
            let _ = self.undo(&record(&group, false));
            return Err(error.during("take snapshots of a group"));
        }
        Ok(group)
    }

    fn delete(&self, _: &Context, group: &GroupSnapshot) -> Result<()> {
        group.snapshots.iter().try_for_each(|member| self.jobs.refuse_snapshot(&member.key))?;
        let record = record(group, false);
        self.groups.put(record.clone())?;
        self.undo(&record)
    }
}
