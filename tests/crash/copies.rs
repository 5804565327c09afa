//! Lives of snapshots, restores and clones in which the host is killed again and again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{Client, MIB, Volume, create, mount};
use tonic::{Code, Status};

use crate::life::{Kill, Rig};

/// How often a copy is asked about.
const AGAIN: Duration = Duration::from_millis(20);

/// Takes a snapshot and waits until it is ready, as an orchestrator does.
fn ready(client: &Client, request: &csi::CreateSnapshotRequest) -> Result<csi::CreateSnapshotResponse, Status> {
    loop {
        match client.create_snapshot(request.clone()) {
            Ok(answer) if answer.snapshot.as_ref().is_some_and(|snapshot| !snapshot.ready_to_use) => {}
            Err(status) if status.code() == Code::Aborted => {}
            answer => return answer,
        }
        std::thread::sleep(AGAIN);
    }
}

/// Makes a volume, and asks again where that goes on in the background.
fn whole(client: &Client, request: &csi::CreateVolumeRequest) -> Result<csi::CreateVolumeResponse, Status> {
    loop {
        match client.create_volume(request.clone()) {
            Err(status) if status.code() == Code::Aborted => std::thread::sleep(AGAIN),
            answer => return answer,
        }
    }
}

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
        let taken = self.call("snapshot", kill, |client| ready(client, &request))?;
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

    /// The life of copies that are made in the background, of a volume that is not in use, as [`copied_life`](Self::copied_life).
    pub(crate) fn background_life(&mut self, kill: Kill) -> Result<usize> {
        self.count_kills_anew();
        let volume = self.make(Kill::Between)?;
        self.bring(&volume)?;
        fs::write(volume.target.join("data"), "data")?;
        self.take_away(&volume)?;
        let snapshot = self.take(&volume, kill)?;
        let source = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() });
        let restored = self.copy("a restore", source, volume.staging.is_some(), kill)?;
        let source = Type::Volume(VolumeSource { volume_id: volume.id() });
        let cloned = self.copy("a clone", source, volume.staging.is_some(), kill)?;
        self.has(&restored, "data")?;
        self.has(&cloned, "data")?;
        self.has(&volume, "data")?;
        self.give_back(snapshot, kill)?;
        for volume in [&volume, &restored, &cloned] {
            self.call("delete", kill, |client| client.delete_volume(volume.delete()))?;
        }
        self.nothing_is_left()?;
        Ok(self.kills())
    }

    /// A volume of which every byte was written.
    pub(crate) fn full(&mut self) -> Result<Volume> {
        let volume = self.make(Kill::Between)?;
        self.bring(&volume)?;
        let bytes = usize::try_from(volume.made.capacity_bytes)?;
        let words: Vec<u8> = (0..bytes / 8).flat_map(|word| word.to_le_bytes()).collect();
        fs::write(&volume.target, words)?;
        self.take_away(&volume)?;
        Ok(volume)
    }

    /// A snapshot of that volume, which takes several steps that are durable each.
    pub(crate) fn copied_whole(&mut self, volume: &Volume, kill: Kill) -> Result<usize> {
        self.count_kills_anew();
        let snapshot = self.take(volume, kill)?;
        let files = self.files_in(&["images", "snapshots"])?;
        let [image, copy] = files.as_slice() else { anyhow::bail!("not two files: {files:?}") };
        ensure!(fs::read(image)? == fs::read(copy)?, "the snapshot has other bytes than its volume");
        self.give_back(snapshot, Kill::Between)?;
        ensure!(self.files_in(&["unfinished", "snapshots", ".dunnage/jobs"])?.is_empty(), "something is left");
        Ok(self.kills())
    }

    fn take(&mut self, volume: &Volume, kill: Kill) -> Result<csi::Snapshot> {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.id(),
            name: "a snapshot".into(),
            ..Default::default()
        };
        self.call("snapshot", kill, |client| ready(client, &request))?.snapshot.context("no snapshot")
    }

    fn give_back(&mut self, snapshot: csi::Snapshot, kill: Kill) -> Result<()> {
        let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
        self.call("delete the snapshot", kill, |client| client.delete_snapshot(request.clone()))?;
        let listed = self.client().list_snapshots(Default::default())?;
        ensure!(listed.entries.is_empty(), "listed: {:?}", listed.entries);
        Ok(())
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
        let made = self.call(name, kill, |client| whole(client, &request))?;
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
