//! The Node service.

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::node_server::Node;
use dunnage_driver_api::{Error, NodeId, Staging};
use tonic::{Request, Response};

use super::call::{Answer, Call, refused};
use super::{Services, capabilities, ephemeral, storage_health};
use crate::mount;
use crate::operations::Lane;
use crate::wire::{self, Publish, VolumeHandle};

#[tonic::async_trait]
impl Node for Services {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Answer<csi::NodeStageVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.stage, "NodeStageVolume")?;
        let call = Call::of("NodeStageVolume", &request);
        let wire::Stage { request, secrets } = wire::stage(request.into_inner()).map_err(refused)?;
        let backend = shared.plugin.backend_of(&request.volume).map_err(refused)?;
        let (key, fields) = (request.volume.key.clone(), request.clone());
        shared
            .bring(call.with_secrets(secrets), backend, &key, &fields, move |shared, backend, cx| {
                backend.volume_where_known(cx, &request.volume)?;
                backend.supports_on_node(&request.capability)?;
                match backend.node()? {
                    (node, Staging::Needed) => {
                        shared.engine()?.stage(cx, node, &|cx, record| backend.release(cx, record), &request)
                    }
                    (_, Staging::None) => Ok(()),
                }
            })
            .await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Answer<csi::NodeUnstageVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.stage, "NodeUnstageVolume")?;
        let call = Call::of("NodeUnstageVolume", &request);
        let wire::Unstage { volume, staging_path } = wire::unstage(request.into_inner()).map_err(refused)?;
        let VolumeHandle::Ours(id) = volume else { return Ok(Response::new(csi::NodeUnstageVolumeResponse {})) };
        let (volume, fields) = (id.clone(), (id.clone(), staging_path.clone()));
        shared
            .take_away(call, &volume, &fields, move |shared, backend, cx| {
                shared.engine()?.unstage(cx, &|cx, record| backend.release(cx, record), &id, &staging_path)
            })
            .await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Answer<csi::NodePublishVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodePublishVolume")?;
        let call = Call::of("NodePublishVolume", &request);
        let (request, secrets) = match wire::publish(request.into_inner()).map_err(refused)? {
            Publish::Volume(request, secrets) => (request, secrets),
            Publish::Ephemeral(request, secrets) => {
                ephemeral::publish(shared, call.with_secrets(secrets), request).await?;
                return Ok(Response::new(csi::NodePublishVolumeResponse {}));
            }
        };
        if shared.plugin.offers.stage && request.staging_path.is_none() {
            return Err(refused(Error::precondition(
                "staging_target_path is missing: this plugin has STAGE_UNSTAGE_VOLUME, so stage the volume first",
            )));
        }
        let backend = shared.plugin.backend_of(&request.volume).map_err(refused)?;
        let (key, fields) = (request.volume.key.clone(), request.clone());
        shared
            .bring(call.with_secrets(secrets), backend, &key, &fields, move |shared, backend, cx| {
                backend.volume_where_known(cx, &request.volume)?;
                backend.supports_on_node(&request.capability)?;
                let (node, staging) = backend.node()?;
                shared.engine()?.publish(cx, node, staging, &request)
            })
            .await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Answer<csi::NodeUnpublishVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeUnpublishVolume")?;
        let call = Call::of("NodeUnpublishVolume", &request);
        let wire::Unpublish { volume, target_path } = wire::unpublish(request.into_inner()).map_err(refused)?;
        let id = match volume {
            VolumeHandle::Ours(id) => id,
            VolumeHandle::Foreign(handle) => {
                ephemeral::unpublish(shared, call, handle, target_path).await?;
                return Ok(Response::new(csi::NodeUnpublishVolumeResponse {}));
            }
        };
        let (volume, fields) = (id.clone(), (id.clone(), target_path.clone()));
        shared
            .take_away(call, &volume, &fields, move |shared, _, _| shared.engine()?.unpublish(&id, &target_path))
            .await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Answer<csi::NodeGetVolumeStatsResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeGetVolumeStats")?;
        let call = Call::of("NodeGetVolumeStats", &request).quick();
        let wire::Stats { volume, path } = wire::stats(request.into_inner()).map_err(refused)?;
        let id = ephemeral::id_of(shared, call.clone(), volume).await?;
        let backend = shared.plugin.configured_of(&id).map_err(refused)?;
        // Where the store is not open its file system is still there to be asked.
        let (key, served) = (id.key.clone(), shared.plugin.backend_of(&id).ok());
        let usage = shared
            .read_at(call, backend, Some(Lane::Reads(key)), move |shared, cx| {
                let usages = shared.engine()?.stats(&id, path.as_path())?;
                match served.as_ref().and_then(|served| served.backend.node.as_ref()) {
                    Some((node, _)) => Ok(mount::of_its_own(usages, node.usage(cx, &id)?)),
                    None => Ok(usages),
                }
            })
            .await?;
        Ok(Response::new(csi::NodeGetVolumeStatsResponse { usage: usage.iter().map(wire::usage_to_wire).collect() }))
    }

    async fn node_get_volume_health(
        &self,
        request: Request<csi::NodeGetVolumeHealthRequest>,
    ) -> Answer<csi::NodeGetVolumeHealthResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeGetVolumeHealth")?;
        let call = Call::of("NodeGetVolumeHealth", &request).quick();
        let request = request.into_inner();
        let text = request.volume_id.clone();
        let volume = wire::health(request).map_err(refused)?;
        let id = ephemeral::id_of(shared, call.clone(), volume).await?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        let key = id.key.clone();
        let findings = shared
            .read(call, backend, Some(&key), move |shared, backend, cx| {
                backend.volume_where_known(cx, &id)?;
                shared.engine()?.volume_health(&id)
            })
            .await?;
        let volume_health = Some(wire::volume_health_to_wire(text, &findings));
        Ok(Response::new(csi::NodeGetVolumeHealthResponse { volume_health }))
    }

    async fn node_get_storage_health(
        &self,
        request: Request<csi::NodeGetStorageHealthRequest>,
    ) -> Answer<csi::NodeGetStorageHealthResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeGetStorageHealth")?;
        let call = Call::of("NodeGetStorageHealth", &request).quick();
        let secrets = wire::secrets(request.into_inner().secrets).map_err(refused)?;
        let backend_health = storage_health::of(shared, call.with_secrets(secrets)).await;
        Ok(Response::new(csi::NodeGetStorageHealthResponse { backend_health }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Answer<csi::NodeExpandVolumeResponse> {
        let shared = self.offering(self.0.plugin.offers.expand_node, "NodeExpandVolume")?;
        let call = Call::of("NodeExpandVolume", &request);
        let wire::ExpandNode { volume, path, capacity, capability, secrets } =
            wire::expand_node(request.into_inner()).map_err(refused)?;
        let id = volume.ours().map_err(refused)?;
        let backend = shared.plugin.backend_of(&id).map_err(refused)?;
        if let Some(capability) = capability {
            backend.supports(&capability).map_err(refused)?;
        }
        let (key, fields) = (id.key.clone(), (id.clone(), path.clone(), capacity));
        let capacity = shared
            .change(call.with_secrets(secrets), backend, &key, &fields, move |shared, backend, cx| {
                let volume = backend.volume_where_known(cx, &id)?;
                let (half, _) = backend.node()?;
                let grown = shared.engine()?.expand(cx, half.node, &id, path.as_path(), capacity)?;
                Ok(grown.or(volume.map(|volume| volume.capacity)).unwrap_or_default())
            })
            .await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse { capacity_bytes: capacity.to_wire() }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Answer<csi::NodeGetCapabilitiesResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeGetCapabilities")?;
        let capabilities = capabilities::node(shared.plugin.offers);
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<csi::NodeGetInfoRequest>) -> Answer<csi::NodeGetInfoResponse> {
        let shared = self.offering(self.0.plugin.offers.node, "NodeGetInfo")?;
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: NodeId::of(&shared.node).to_string(),
            max_volumes_per_node: 0,
            accessible_topology: shared.plugin.offers.constraints.then(|| shared.segment.to_wire()),
        }))
    }
}
