//! Group snapshots.

use dunnage_csi_proto::csi::v1::group_controller_server::GroupController;
use dunnage_csi_proto::csi::v1::group_controller_service_capability::rpc::Type as Rpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::{Request, Status};

use super::disk::{self, failed};
use super::state::{Group, State};
use super::{Answer, Plugin, now, ok};
use crate::mutant::Mutant;

impl Plugin {
    fn told_group(&self, state: &State, group: &Group) -> VolumeGroupSnapshot {
        let members = group.snapshots.iter().filter_map(|id| state.snapshots.get(id));
        let mut told = VolumeGroupSnapshot {
            group_snapshot_id: group.id.clone(),
            snapshots: members.map(super::state::Snapshot::to_wire).collect(),
            creation_time: Some(prost_types::Timestamp { seconds: group.time.0, nanos: group.time.1 }),
            ready_to_use: true,
        };
        if self.is(Mutant::GroupWithoutAMember) {
            told.snapshots.pop();
        }
        if self.is(Mutant::GroupMemberOfAnother) {
            told.snapshots.iter_mut().for_each(|own| own.group_snapshot_id = "other".to_owned());
        }
        if self.is(Mutant::GroupReadyTooSoon) {
            told.snapshots.iter_mut().take(1).for_each(|own| own.ready_to_use = false);
        }
        if self.is(Mutant::GroupTimeIsNow) {
            let (seconds, nanos) = now();
            told.creation_time = Some(prost_types::Timestamp { seconds, nanos });
        }
        told
    }

    fn mismatch(&self, group: &Group, snapshot_ids: &[String]) -> Result<(), Status> {
        let mut asked = snapshot_ids.to_vec();
        let mut own = group.snapshots.clone();
        asked.sort();
        own.sort();
        if asked != own && !self.is(Mutant::GroupIgnoresMismatch) && !self.is(Mutant::GroupWithoutAMember) {
            return Err(Status::invalid_argument("these are not the snapshots of the group"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl GroupController for Plugin {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<GroupControllerGetCapabilitiesResponse> {
        let rpc = group_controller_service_capability::Rpc { r#type: Rpc::CreateDeleteGetVolumeGroupSnapshot.into() };
        let r#type = Some(group_controller_service_capability::Type::Rpc(rpc));
        ok(GroupControllerGetCapabilitiesResponse { capabilities: vec![GroupControllerServiceCapability { r#type }] })
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<CreateVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.required("name", &request.name, Mutant::GroupWithoutName)?;
        if request.source_volume_ids.is_empty() {
            return Err(Status::invalid_argument("source_volume_ids is required"));
        }
        self.middle("CreateVolumeGroupSnapshot").await?;
        let mut state = self.state();
        let known = state.groups.values().find(|own| own.name == request.name).cloned();
        if let Some(group) = known.filter(|_| !self.is(Mutant::NewGroupEachTime)) {
            if group.sources != request.source_volume_ids && !self.is(Mutant::GroupIgnoresOtherMembers) {
                return Err(Status::already_exists("a group snapshot of this name has other members"));
            }
            let told = self.told_group(&state, &group);
            return ok(CreateVolumeGroupSnapshotResponse { group_snapshot: Some(told) });
        }
        let unknown = request.source_volume_ids.iter().find(|id| !state.volumes.contains_key(*id)).cloned();
        let leaks = self.is(Mutant::GroupLeaksMembers) || self.is(Mutant::GroupOfUnknownMember);
        if let Some(unknown) = unknown.filter(|_| !leaks) {
            return Err(Status::not_found(format!("there is no volume {unknown}")));
        }
        let id = state.id('g');
        let mut snapshots = Vec::new();
        for source in &request.source_volume_ids {
            match self.cut(&mut state, source, &format!("{id} {source}"), &id) {
                Ok(snapshot) => {
                    snapshots.push(snapshot.id);
                    if self.is(Mutant::KeepsHalfAGroup) {
                        self.save(&state);
                        std::thread::sleep(super::controller::WINDOW);
                    }
                }
                Err(_) if self.is(Mutant::GroupOfUnknownMember) => {}
                Err(refused) => {
                    self.save(&state);
                    return Err(refused);
                }
            }
        }
        let group =
            Group { id: id.clone(), name: request.name, sources: request.source_volume_ids, snapshots, time: now() };
        let told = self.told_group(&state, &group);
        state.groups.insert(id, group);
        self.save(&state);
        ok(CreateVolumeGroupSnapshotResponse { group_snapshot: Some(told) })
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<DeleteVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.required("group_snapshot_id", &request.group_snapshot_id, Mutant::DeletesGroupWithoutId)?;
        let mut state = self.state();
        let Some(group) = state.groups.get(&request.group_snapshot_id).cloned() else {
            return match self.is(Mutant::DeleteUnknownGroupFails) {
                true => Err(Status::not_found("there is no such group")),
                false => ok(DeleteVolumeGroupSnapshotResponse {}),
            };
        };
        self.mismatch(&group, &request.snapshot_ids)?;
        state.groups.remove(&group.id);
        for id in &group.snapshots {
            if self.is(Mutant::GroupDeleteLeavesMembers) {
                state.snapshots.entry(id.clone()).and_modify(|own| own.group.clear());
                continue;
            }
            state.snapshots.remove(id);
            disk::remove(&self.snapshot_path(id)).map_err(failed)?;
        }
        self.save(&state);
        ok(DeleteVolumeGroupSnapshotResponse {})
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<GetVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        self.required("group_snapshot_id", &request.group_snapshot_id, Mutant::GetsUnknownGroup)?;
        let state = self.state();
        match state.groups.get(&request.group_snapshot_id) {
            Some(group) => {
                self.mismatch(group, &request.snapshot_ids)?;
                let mut told = self.told_group(&state, group);
                if self.is(Mutant::GetGroupWithoutMembers) {
                    told.snapshots.clear();
                }
                ok(GetVolumeGroupSnapshotResponse { group_snapshot: Some(told) })
            }
            None if self.is(Mutant::GetsUnknownGroup) => ok(GetVolumeGroupSnapshotResponse::default()),
            None => Err(Status::not_found("there is no such group")),
        }
    }
}
