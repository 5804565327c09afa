//! Volumes.

use std::collections::HashMap;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::controller_server::Controller;
use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::{Request, Status};

use super::disk::{self, failed};
use super::state::{State, Volume};
use super::volumes::check_mutable;
use super::{Answer, NODE, Plugin, is_block, ok, page};
use crate::mutant::Mutant;

pub(super) const LARGEST: i64 = 1 << 40;
/// How long a mutant stands where it must not be killed.
pub(super) const WINDOW: std::time::Duration = std::time::Duration::from_millis(20);

/// A page whose token is the last id of the one before, which must still be there.
fn after(state: &State, most: usize, token: &str) -> Answer<ListVolumesResponse> {
    if !token.is_empty() && !state.volumes.contains_key(token) {
        return Err(Status::internal(format!("there is no volume {token} to go on from")));
    }
    let rest: Vec<_> = state.volumes.values().filter(|own| own.id.as_str() > token).collect();
    let more = rest.len() > most;
    let next_token = rest.get(most.wrapping_sub(1)).filter(|_| more).map(|own| own.id.clone()).unwrap_or_default();
    let entry = |own: &&Volume| list_volumes_response::Entry { volume: Some(own.to_wire()), status: None };
    ok(ListVolumesResponse { entries: rest.iter().take(most).map(entry).collect(), next_token })
}

pub(super) fn no_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id}"))
}

#[tonic::async_trait]
impl Controller for Plugin {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let mut rpcs = vec![
            Rpc::CreateDeleteVolume,
            Rpc::PublishUnpublishVolume,
            Rpc::PublishReadonly,
            Rpc::ListVolumes,
            Rpc::ListVolumesPublishedNodes,
            Rpc::GetCapacity,
            Rpc::CreateDeleteSnapshot,
            Rpc::ListSnapshots,
            Rpc::GetSnapshot,
            Rpc::CloneVolume,
            Rpc::ExpandVolume,
            Rpc::GetVolume,
            Rpc::ModifyVolume,
            Rpc::SingleNodeMultiWriter,
            Rpc::GetVolumeHealth,
            Rpc::ListVolumeHealth,
        ];
        for (mutant, without) in [
            (Mutant::HealthListWithoutGet, Rpc::GetVolumeHealth),
            (Mutant::DoesMoreThanAdvertised, Rpc::GetCapacity),
            (Mutant::ClonesNotAdvertised, Rpc::CloneVolume),
            (Mutant::ExpansionWithoutRpc, Rpc::ExpandVolume),
        ] {
            rpcs.retain(|rpc| !(self.is(mutant) && *rpc == without));
        }
        let capability = |rpc: Rpc| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(controller_service_capability::Rpc {
                r#type: rpc.into(),
            })),
        };
        ok(ControllerGetCapabilitiesResponse { capabilities: rpcs.into_iter().map(capability).collect() })
    }

    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        self.create(request.into_inner()).await
    }

    async fn delete_volume(&self, request: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        self.delete(request.into_inner().volume_id).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::AttachesWithoutId)?;
        self.required("node_id", &request.node_id, Mutant::AttachesWithoutNode)?;
        let capability = request.volume_capability.ok_or_else(|| Status::invalid_argument("no volume_capability"))?;
        is_block(&capability)?;
        let mut state = self.state();
        if !state.volumes.contains_key(&request.volume_id) && !self.is(Mutant::AttachesUnknownVolume) {
            return Err(no_volume(&request.volume_id));
        }
        if request.node_id != NODE && !self.is(Mutant::AttachesToUnknownNode) {
            return Err(Status::not_found(format!("there is no node {}", request.node_id)));
        }
        match state.attached.get(&request.volume_id) {
            Some(readonly) if *readonly != request.readonly && !self.is(Mutant::AttachIgnoresReadonly) => {
                return Err(Status::already_exists("it is attached otherwise"));
            }
            _ => {}
        }
        state.attached.insert(request.volume_id.clone(), request.readonly);
        self.save(&state);
        let mut publish_context = HashMap::from([("attached".to_owned(), request.volume_id)]);
        if self.is(Mutant::PublishContextChanges) {
            publish_context.insert("time".to_owned(), format!("{:?}", super::now()));
        }
        ok(ControllerPublishVolumeResponse { publish_context })
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::AttachesWithoutId)?;
        let mut state = self.state();
        if request.node_id.is_empty() && self.is(Mutant::DetachNeedsNode) {
            return ok(ControllerUnpublishVolumeResponse {});
        }
        let was = state.attached.remove(&request.volume_id);
        if was.is_none() && self.is(Mutant::DetachTwiceFails) {
            return Err(Status::internal("it is not attached"));
        }
        self.save(&state);
        ok(ControllerUnpublishVolumeResponse {})
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ValidatesWithoutId).map_err(|own| self.spoiled(own))?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is required"));
        }
        let state = self.state();
        let Some(volume) = state.volumes.get(&request.volume_id) else {
            return match self.is(Mutant::ValidatesUnknown) {
                true => ok(ValidateVolumeCapabilitiesResponse::default()),
                false => Err(self.spoiled(no_volume(&request.volume_id))),
            };
        };
        let mut fits = true;
        for capability in &request.volume_capabilities {
            fits &= is_block(capability)? == volume.block || self.is(Mutant::ConfirmsWhatItRefuses);
        }
        let mut confirmed = validate_volume_capabilities_response::Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        if self.is(Mutant::ConfirmsNoCapabilities) {
            confirmed.volume_capabilities.clear();
        }
        let confirmed = (fits && !self.is(Mutant::ConfirmsNothing)).then_some(confirmed);
        ok(ValidateVolumeCapabilitiesResponse { confirmed, message: String::new() })
    }

    async fn list_volumes(&self, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let ListVolumesRequest { max_entries, starting_token } = request.into_inner();
        if max_entries < 0 && self.is(Mutant::EndsByItself) {
            std::process::exit(1);
        }
        let state = self.state();
        let mut all: Vec<_> = state
            .volumes
            .values()
            .map(|volume| {
                let published_node_ids = state.attached.get(&volume.id).map(|_| NODE.to_owned()).into_iter().collect();
                let status = list_volumes_response::VolumeStatus { published_node_ids };
                list_volumes_response::Entry { volume: Some(volume.to_wire()), status: Some(status) }
            })
            .collect();
        if self.is(Mutant::ListsWithoutStatus) {
            all.iter_mut().for_each(|entry| entry.status = None);
        }
        if self.is(Mutant::ListsWithoutLast) {
            all.pop();
        }
        if self.is(Mutant::TokenOfADeletedVolumeFails) && max_entries > 0 {
            return after(&state, usize::try_from(max_entries).unwrap(), &starting_token);
        }
        let most = if self.is(Mutant::IgnoresMaxEntries) { 0 } else { max_entries };
        let checks = (!self.is(Mutant::AcceptsAnyToken), !self.is(Mutant::AcceptsNegativeMaxEntries));
        let (entries, next_token) = page(all, most, &starting_token, checks)?;
        if self.is(Mutant::PagesOverlap) && !next_token.is_empty() && max_entries > 1 {
            let next_token = (next_token.parse::<usize>().unwrap() - 1).to_string();
            return ok(ListVolumesResponse { entries, next_token });
        }
        if self.is(Mutant::FirstPageOnly) {
            return ok(ListVolumesResponse { entries, next_token: String::new() });
        }
        ok(ListVolumesResponse { entries, next_token })
    }

    async fn get_capacity(&self, _: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        if self.is(Mutant::AdvertisedAndUnimplemented) {
            return Err(Status::unimplemented("not yet"));
        }
        let available_capacity = if self.is(Mutant::NegativeCapacity) { -1 } else { LARGEST };
        ok(GetCapacityResponse { available_capacity, maximum_volume_size: Some(LARGEST), minimum_volume_size: None })
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.required("volume_id", &id, Mutant::GetsWithoutId)?;
        let state = self.state();
        let status = Some(controller_get_volume_response::VolumeStatus::default());
        match state.volumes.get(&id) {
            Some(volume) => {
                let status = status.filter(|_| !self.is(Mutant::GetsWithoutStatus));
                ok(ControllerGetVolumeResponse { volume: Some(volume.to_wire()), status })
            }
            None if self.is(Mutant::GetsUnknown) => {
                let volume = Some(csi::Volume { volume_id: id, ..Default::default() });
                ok(ControllerGetVolumeResponse { volume, status })
            }
            None if self.is(Mutant::GetsWithoutId) => ok(ControllerGetVolumeResponse::default()),
            None => Err(no_volume(&id)),
        }
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        if self.is(Mutant::ExpansionWithoutRpc) {
            return Err(Status::unimplemented("no"));
        }
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ExpandsWithoutId)?;
        let range = request.capacity_range.ok_or_else(|| Status::invalid_argument("capacity_range is required"))?;
        self.check_range(Some(&range))?;
        self.middle("ControllerExpandVolume").await?;
        let mut state = self.state();
        let published = state.published.values().any(|own| own.volume == request.volume_id);
        if published && self.is(Mutant::OnlineExpansionRefused) {
            return Err(Status::failed_precondition("the volume is published"));
        }
        let path = self.volume_path(&request.volume_id);
        let Some(volume) = state.volumes.get_mut(&request.volume_id) else {
            return match self.is(Mutant::ExpandsUnknown) || self.is(Mutant::ExpandsWithoutId) {
                true => {
                    ok(ControllerExpandVolumeResponse { capacity_bytes: range.required_bytes, ..Default::default() })
                }
                false => Err(no_volume(&request.volume_id)),
            };
        };
        let before = volume.capacity;
        if before >= range.required_bytes && self.is(Mutant::ExpandTwiceFails) {
            return Err(Status::out_of_range("it is as large already"));
        }
        volume.capacity =
            if self.is(Mutant::ExpandShrinks) { range.required_bytes } else { before.max(range.required_bytes) };
        let capacity_bytes = if self.is(Mutant::ExpandTellsTheOldSize) { before } else { volume.capacity };
        if !self.is(Mutant::ExpandIsNotSeen) {
            disk::grow(&path, volume.capacity).map_err(failed)?;
        }
        if self.is(Mutant::ExpandIsForgotten) {
            volume.capacity = before;
        }
        self.save(&state);
        disk::refresh(&path).map_err(failed)?;
        ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: true })
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ModifiesWithoutId)?;
        if request.mutable_parameters.is_empty() && !self.is(Mutant::ModifiesNothing) {
            return Err(Status::invalid_argument("mutable_parameters is required"));
        }
        check_mutable(self, &request.mutable_parameters)?;
        let known = self.state().volumes.contains_key(&request.volume_id);
        if !known && !self.is(Mutant::ModifiesUnknown) && !self.is(Mutant::ModifiesWithoutId) {
            return Err(no_volume(&request.volume_id));
        }
        if self.is(Mutant::ModifyTwiceFails) && !self.busy.lock().unwrap().insert("ControllerModifyVolume") {
            return Err(Status::internal("it is modified already"));
        }
        ok(ControllerModifyVolumeResponse {})
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Answer<ControllerGetVolumeHealthResponse> {
        let id = request.into_inner().volume_id;
        self.health(&id)
            .map(|health| tonic::Response::new(ControllerGetVolumeHealthResponse { volume_health: Some(health) }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Answer<ControllerListVolumeHealthResponse> {
        let request = request.into_inner();
        let ids: Vec<String> = self.state().volumes.keys().cloned().collect();
        let all = ids.iter().map(|id| self.health(id)).collect::<Result<Vec<_>, _>>()?;
        let checks = (!self.is(Mutant::HealthAcceptsAnyToken), !self.is(Mutant::HealthAcceptsNegative));
        let most = if self.is(Mutant::HealthIgnoresMaxEntries) { 0 } else { request.max_entries };
        let (entries, next_token) = page(all, most, &request.starting_token, checks)?;
        ok(ControllerListVolumeHealthResponse { entries, next_token })
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        self.middle("CreateSnapshot").await?;
        self.snapshot(request.into_inner())
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        self.unsnapshot(request.into_inner())
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        self.snapshots(request.into_inner())
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Answer<GetSnapshotResponse> {
        self.find_snapshot(request.into_inner())
    }
}
