//! The Controller service.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::controller_server::Controller;
use dunnage_driver_api::{Bytes, Capacity, Context, Error, ErrorKind, Reach, Result, SourceId, Volume};
use futures_util::future::try_join_all;
use tonic::{Request, Response, Status};

use super::call::{Answer, Call, refused};
use super::{Services, Shared, capabilities, list, snapshots, volume_health};
use crate::operations::{Key, Keys, Lane};
use crate::registry::{AttachTo, Offers, ServedBackend};
use crate::status;
use crate::wire::{self, DetachFrom, VolumeHandle};

#[tonic::async_trait]
impl Controller for Services {
    async fn create_volume(&self, request: Request<csi::CreateVolumeRequest>) -> Answer<csi::CreateVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.create, "CreateVolume")?;
        let call = Call::of("CreateVolume", &request);
        let wire::Create { backend, accessibility, request, secrets } =
            wire::create_volume(request.into_inner()).map_err(refused)?;
        // Where the store is not open now, another node may have it.
        let named = shared.plugin.backend_for(backend.as_ref(), request.source.as_ref());
        let backend = named.map_err(|error| status::of_failure("CreateVolume", &error.into()))?;
        let key = request.key.clone();
        let fields =
            (request.fingerprint.clone(), request.capacity, request.capabilities.clone(), accessibility.clone());
        let served = backend.clone();
        offered(shared.plugin.offers, request.source.as_ref()).map_err(refused)?;
        let of_source: Vec<Key> = match &request.source {
            Some(SourceId::Snapshot(id)) => vec![Key::snapshot(id.instance.clone(), id.key.clone())],
            Some(SourceId::Volume(id)) => Keys::of_source(id, backend.backend.copies_in_use).collect(),
            None => Vec::new(),
        };
        let keys = Keys::new(Keys::of_change(backend.backend.instance.clone(), key.clone()), of_source);
        let volume = shared
            .change_all(
                call.with_secrets(secrets),
                backend,
                keys,
                Lane::Changes(key),
                &fields,
                move |shared, backend, cx| {
                    backend.create(cx, &request, || shared.reaches(backend, accessibility.as_ref()))
                },
            )
            .await?;
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(shared.volume_to_wire(&served, &volume)) }))
    }

    async fn delete_volume(&self, request: Request<csi::DeleteVolumeRequest>) -> Answer<csi::DeleteVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.create, "DeleteVolume")?;
        let call = Call::of("DeleteVolume", &request);
        let request = request.into_inner();
        let secrets = wire::secrets(request.secrets).map_err(refused)?;
        let VolumeHandle::Ours(id) = wire::volume_handle(request.volume_id).map_err(refused)? else {
            return Ok(Response::new(csi::DeleteVolumeResponse {}));
        };
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let (key, fields) = (id.key.clone(), id.clone());
        shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |shared, backend, cx| {
                backend.delete(cx, shared.engine.as_deref(), &id)
            })
            .await?;
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.attach, "ControllerPublishVolume")?;
        let call = Call::of("ControllerPublishVolume", &request);
        let wire::Attach { volume, node, capability, readonly, volume_context, secrets } =
            wire::attach(request.into_inner()).map_err(refused)?;
        let id = volume.ours().map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let (key, fields) = (id.key.clone(), (id.clone(), node.clone(), capability.clone(), readonly));
        let context = shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |_, backend, cx| {
                let volume = backend.volume(cx, &id)?;
                has_context(&volume, &volume_context)?;
                let attached = backend.attach(cx, &volume, AttachTo { node, capability, readonly });
                attached.map_err(|error| error.with("volume", &id))
            })
            .await?;
        let publish_context = context.into_iter().collect();
        Ok(Response::new(csi::ControllerPublishVolumeResponse { publish_context }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.attach, "ControllerUnpublishVolume")?;
        let call = Call::of("ControllerUnpublishVolume", &request);
        let wire::Detach { volume, from, secrets } = wire::detach(request.into_inner()).map_err(refused)?;
        let done = Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}));
        let VolumeHandle::Ours(id) = volume else { return done };
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let node = match &from {
            DetachFrom::All => None,
            DetachFrom::Node(node) => Some(node.clone()),
            DetachFrom::Unknown => return done,
        };
        let (key, fields) = (id.key.clone(), (id.clone(), from));
        shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |_, backend, cx| {
                backend.detach(cx, &id, node.as_ref()).map_err(|error| error.with("volume", &id))
            })
            .await?;
        done
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        let shared = self.offering(self.0.plugin.offers.controller, "ValidateVolumeCapabilities")?;
        let call = Call::of("ValidateVolumeCapabilities", &request);
        let wire::Validate { volume, capabilities, parameters, mutable_parameters, volume_context, wire, secrets } =
            wire::validate(request.into_inner()).map_err(refused)?;
        let id = volume.ours().map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let key = id.key.clone();
        let unfit = shared
            .read(call.with_secrets(secrets), backend, Some(&key), move |_, backend, cx| {
                let volume = backend.volume(cx, &id)?;
                let fits = backend
                    .fits(&capabilities, &parameters.driver)
                    .and_then(|()| backend.fits_mutable(&mutable_parameters));
                Ok(fits.and_then(|()| has_context(&volume, &volume_context)).err())
            })
            .await?;
        Ok(Response::new(match unfit {
            None => csi::ValidateVolumeCapabilitiesResponse { confirmed: Some(wire), message: String::new() },
            Some(reason) => csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message: reason.report() },
        }))
    }

    async fn list_volumes(&self, request: Request<csi::ListVolumesRequest>) -> Answer<csi::ListVolumesResponse> {
        let shared = self.offering(self.0.plugin.offers.controller, "ListVolumes")?;
        let call = Call::of("ListVolumes", &request);
        let request = request.into_inner();
        let page = wire::page(request.max_entries, &request.starting_token).map_err(refused)?;
        let start = page.start.map_err(|token| status::bad_token(&token))?;
        list::volumes(shared, call, page.max_entries, start).await.map(Response::new)
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.controller, "ControllerGetVolume")?;
        let call = Call::of("ControllerGetVolume", &request);
        let id = wire::volume_handle(request.into_inner().volume_id).and_then(VolumeHandle::ours).map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let (served, key) = (backend.clone(), id.key.clone());
        let look = move |_: &Shared, backend: &ServedBackend, cx: &Context| {
            let volume = backend.volume(cx, &id)?;
            let published_node_ids = backend.attached_nodes(cx, &volume)?;
            Ok((volume, published_node_ids))
        };
        let (volume, published_node_ids) = shared.read(call, backend, Some(&key), look).await?;
        Ok(Response::new(csi::ControllerGetVolumeResponse {
            volume: Some(shared.volume_to_wire(&served, &volume)),
            status: Some(csi::controller_get_volume_response::VolumeStatus { published_node_ids }),
        }))
    }

    async fn get_capacity(&self, request: Request<csi::GetCapacityRequest>) -> Answer<csi::GetCapacityResponse> {
        let shared = self.offering(self.0.plugin.offers.room, "GetCapacity")?;
        let call = Call::of("GetCapacity", &request);
        let request = wire::get_capacity(request.into_inner()).map_err(refused)?;
        let capacity = capacity(shared, call, request).await?;
        Ok(Response::new(csi::GetCapacityResponse {
            available_capacity: capacity.available.to_wire(),
            maximum_volume_size: capacity.maximum_volume_size.map(Bytes::to_wire),
            minimum_volume_size: capacity.minimum_volume_size.map(Bytes::to_wire),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.expand, "ControllerExpandVolume")?;
        let call = Call::of("ControllerExpandVolume", &request);
        let wire::Expand { volume, capacity, capability, secrets } =
            wire::expand_volume(request.into_inner()).map_err(refused)?;
        let id = volume.ours().map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        if let Some(capability) = capability {
            backend.supports(&capability).map_err(refused)?;
        }
        let (key, fields) = (id.key.clone(), (id.clone(), capacity));
        let expanded = shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |_, backend, cx| {
                backend.expand(cx, &id, capacity)
            })
            .await?;
        Ok(Response::new(csi::ControllerExpandVolumeResponse {
            capacity_bytes: expanded.capacity.to_wire(),
            node_expansion_required: expanded.node_expansion_required,
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.modify, "ControllerModifyVolume")?;
        let call = Call::of("ControllerModifyVolume", &request);
        let wire::Modify { volume, parameters, secrets } =
            wire::modify_volume(request.into_inner()).map_err(refused)?;
        let id = volume.ours().map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let (key, fields) = (id.key.clone(), (id.clone(), parameters.pairs().clone()));
        shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |_, backend, cx| {
                backend.modify(cx, &id, &parameters)
            })
            .await?;
        Ok(Response::new(csi::ControllerModifyVolumeResponse {}))
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.snapshots, "CreateSnapshot")?;
        let call = Call::of("CreateSnapshot", &request);
        let request = wire::create_snapshot(request.into_inner()).map_err(refused)?;
        let snapshot = snapshots::create(shared, call, request).await?;
        Ok(Response::new(csi::CreateSnapshotResponse { snapshot: Some(snapshot) }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.snapshots, "DeleteSnapshot")?;
        let call = Call::of("DeleteSnapshot", &request);
        snapshots::delete(shared, call, request.into_inner()).await?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(&self, request: Request<csi::ListSnapshotsRequest>) -> Answer<csi::ListSnapshotsResponse> {
        let shared = self.offering(self.0.plugin.offers.snapshots, "ListSnapshots")?;
        let call = Call::of("ListSnapshots", &request);
        let request = wire::list_snapshots(request.into_inner()).map_err(refused)?;
        snapshots::list(shared, call, request).await.map(Response::new)
    }

    async fn get_snapshot(&self, request: Request<csi::GetSnapshotRequest>) -> Answer<csi::GetSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.snapshots, "GetSnapshot")?;
        let call = Call::of("GetSnapshot", &request);
        let snapshot = snapshots::get(shared, call, request.into_inner()).await?;
        Ok(Response::new(csi::GetSnapshotResponse { snapshot: Some(snapshot) }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<csi::ControllerGetVolumeHealthRequest>,
    ) -> Answer<csi::ControllerGetVolumeHealthResponse> {
        let shared = self.offering(self.0.plugin.offers.health, "ControllerGetVolumeHealth")?;
        let call = Call::of("ControllerGetVolumeHealth", &request).quick();
        let health = volume_health::get(shared, call, request.into_inner()).await?;
        Ok(Response::new(csi::ControllerGetVolumeHealthResponse { volume_health: Some(health) }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<csi::ControllerListVolumeHealthRequest>,
    ) -> Answer<csi::ControllerListVolumeHealthResponse> {
        let shared = self.offering(self.0.plugin.offers.health, "ControllerListVolumeHealth")?;
        let call = Call::of("ControllerListVolumeHealth", &request);
        let request = request.into_inner();
        let call = call.with_secrets(wire::secrets(request.secrets).map_err(refused)?);
        let page = wire::page(request.max_entries, &request.starting_token).map_err(refused)?;
        let start = page.start.map_err(|token| status::bad_token(&token))?;
        volume_health::list(shared, call, page.max_entries, start).await.map(Response::new)
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        let shared = self.offering(self.0.plugin.offers.controller, "ControllerGetCapabilities")?;
        let capabilities = capabilities::controller(shared.plugin.offers);
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities }))
    }
}

/// Whether volumes are made from such a source.
fn offered(offers: Offers, source: Option<&SourceId>) -> Result<()> {
    let lacks = match source {
        Some(SourceId::Snapshot(_)) if !offers.snapshots => "CREATE_DELETE_SNAPSHOT",
        Some(SourceId::Volume(_)) if !offers.clones => "CLONE_VOLUME",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("volume_content_source is not supported: this plugin does not have {lacks}")))
}

/// Whether this is the context of the volume, where a request says it.
fn has_context(volume: &Volume, context: &BTreeMap<String, String>) -> Result<()> {
    if context.is_empty() || *context == volume.context {
        return Ok(());
    }
    Err(Error::invalid("volume_context is not that of the volume: pass what CreateVolume answered, or nothing"))
}

/// What one backend has room for, or, behind a shared name, the one that has the most: a volume lies in one.
async fn capacity(
    shared: &Arc<Shared>,
    call: Call,
    request: wire::GetCapacity,
) -> std::result::Result<Capacity, Status> {
    let backends = match &request.parameters.backend {
        Some(name) => match shared.plugin.backend_named(Some(name)) {
            // Nothing can be made there now.
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => Vec::new(),
            named => vec![named.map_err(refused)?],
        },
        None => shared.plugin.backends(),
    };
    let several = backends.len() > 1;
    let mut asked = Vec::new();
    for backend in backends {
        let elsewhere = backend.backend.reach == Reach::Node && !request.includes(&shared.segment);
        let fits = backend.fits(&request.capabilities, &request.parameters.driver);
        if elsewhere || (several && fits.is_err()) {
            continue;
        }
        fits.map_err(refused)?;
        let parameters = request.parameters.driver.clone();
        let room = move |_: &Shared, backend: &ServedBackend, cx: &Context| backend.room(cx, &parameters);
        asked.push(shared.read(call.clone(), backend, None, room));
    }
    let rooms = try_join_all(asked).await?;
    Ok(rooms.into_iter().max_by_key(|room| room.available).unwrap_or_default())
}

impl Services {
    /// The shared parts, where the plugin offers the RPC.
    pub(super) fn offering(&self, offered: bool, rpc: &str) -> std::result::Result<&Arc<Shared>, Status> {
        if offered { Ok(&self.0) } else { Err(status::unimplemented(rpc)) }
    }
}
