//! Lives of snapshots, restores and clones in which the host is killed again and again.

use std::fs;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{MIB, Volume, create, mount};

use crate::life::{Kill, Rig};

impl Rig {
    /// The life of a volume that is copied while it is in use, with every call that makes or removes a copy repeated after
    /// the host was killed. Answers how often that was.
    pub(crate) fn copied_life(&mut self, kill: Kill) -> Result<usize> {
        self.count_kills_anew();
        let volume = self.make(Kill::Between)?;
        self.bring(&volume)?;
        fs::write(volume.target.join("data"), "early")?;
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.id(),
            name: "a snapshot".into(),
            ..Default::default()
        };
        let taken = self.call("snapshot", kill, |client| client.create_snapshot(request.clone()))?;
        let snapshot = taken.snapshot.context("no snapshot")?;
        fs::write(volume.target.join("data"), "late")?;
        let source = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() });
        let restored = self.copy("a restore", source, volume.staging.is_some(), kill)?;
        let source = Type::Volume(VolumeSource { volume_id: volume.id() });
        let cloned = self.copy("a clone", source, volume.staging.is_some(), kill)?;
        self.has(&restored, "early")?;
        self.has(&cloned, "late")?;
        let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
        self.call("delete the snapshot", kill, |client| client.delete_snapshot(request.clone()))?;
        let listed = self.client().list_snapshots(Default::default())?;
        ensure!(listed.entries.is_empty(), "listed: {:?}", listed.entries);
        self.take_away(&volume)?;
        for volume in [&volume, &restored, &cloned] {
            self.call("delete", kill, |client| client.delete_volume(volume.delete()))?;
        }
        self.nothing_is_left()?;
        Ok(self.kills())
    }

    /// The life of a group of snapshots of two volumes in use, with every call that makes or removes it repeated after
    /// the host was killed. Answers how often that was.
    pub(crate) fn grouped_life(&mut self, kill: Kill) -> Result<usize> {
        self.count_kills_anew();
        let volume = self.make(Kill::Between)?;
        self.bring(&volume)?;
        fs::write(volume.target.join("data"), "data")?;
        let stages = volume.staging.is_some();
        let other =
            self.copy("another", Type::Volume(VolumeSource { volume_id: volume.id() }), stages, Kill::Between)?;
        self.bring(&other)?;
        let request = csi::CreateVolumeGroupSnapshotRequest {
            source_volume_ids: vec![volume.id(), other.id()],
            name: "a group".into(),
            ..Default::default()
        };
        let taken = self.call("group", kill, |client| client.create_volume_group_snapshot(request.clone()))?;
        let group = taken.group_snapshot.context("no group")?;
        ensure!(self.client().list_snapshots(Default::default())?.entries.len() == 2, "a member is missing");
        for taken_of in [&volume, &other] {
            fs::write(taken_of.target.join("data"), "late")?;
        }
        for snapshot in &group.snapshots {
            let source = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() });
            let restored = self.copy("a restore", source, stages, Kill::Between)?;
            self.has(&restored, "data")?;
            self.client().delete_volume(restored.delete())?;
        }
        let request = csi::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: group.group_snapshot_id,
            snapshot_ids: group.snapshots.into_iter().map(|snapshot| snapshot.snapshot_id).collect(),
            ..Default::default()
        };
        self.call("delete the group", kill, |client| client.delete_volume_group_snapshot(request.clone()))?;
        let listed = self.client().list_snapshots(Default::default())?;
        ensure!(listed.entries.is_empty(), "listed: {:?}", listed.entries);
        for volume in [&volume, &other] {
            self.take_away(volume)?;
            self.client().delete_volume(volume.delete())?;
        }
        self.nothing_is_left()?;
        Ok(self.kills())
    }

    fn copy(&mut self, name: &str, source: Type, stages: bool, kill: Kill) -> Result<Volume> {
        let mut request = create(name, 16 * MIB, mount());
        request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
        let made = self.call(name, kill, |client| client.create_volume(request.clone()))?;
        Ok(Volume::new(made.volume.context("no volume")?, mount(), &self.pods().join(name), stages))
    }

    /// That the copy holds this.
    fn has(&self, copy: &Volume, data: &str) -> Result<()> {
        self.bring(copy)?;
        let found = fs::read_to_string(copy.target.join("data"))?;
        self.take_away(copy)?;
        ensure!(found == data, "a copy has {found:?} and not {data:?}");
        Ok(())
    }
}
