//! Volumes on the node.

use std::path::Path;

use dunnage_csi_proto::csi::v1::node_server::Node;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as Rpc;
use dunnage_csi_proto::csi::v1::volume_capability::AccessType;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::*;
use tonic::{Request, Status};

use super::disk::{self, failed};
use super::state::{Published, State};
use super::{Answer, NODE, Plugin, here, is_block, ok};
use crate::mutant::Mutant;

fn no_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id}"))
}

/// Whether more than one target may be used at a time.
fn several(capability: &VolumeCapability) -> bool {
    let mode = capability.access_mode.as_ref().map_or(Mode::Unknown, |own| own.mode());
    !matches!(mode, Mode::SingleNodeWriter | Mode::SingleNodeReaderOnly | Mode::SingleNodeSingleWriter)
}

impl Plugin {
    fn check_capability(&self, capability: Option<&VolumeCapability>, forgets: Mutant) -> Result<(), Status> {
        match capability {
            None if self.is(forgets) => Ok(()),
            None => Err(Status::invalid_argument("volume_capability is required")),
            Some(_) if self.is(forgets) => Ok(()),
            Some(capability) => is_block(capability).map(drop),
        }
    }

    /// The data of a volume, in the form in which it is bound.
    fn bind(&self, volume: &str, request: &NodePublishVolumeRequest) -> Result<(), Status> {
        let target = Path::new(&request.target_path);
        let path = self.volume_path(volume);
        let readonly = request.readonly && !self.is(Mutant::ReadonlyIsWritable);
        if path.is_dir() {
            let flags = request.volume_capability.as_ref().and_then(|own| match &own.access_type {
                Some(AccessType::Mount(mount)) => Some(mount.mount_flags.iter().any(|flag| flag == "noatime")),
                _ => None,
            });
            let noatime = flags.unwrap_or(false) && !self.is(Mutant::IgnoresMountFlags);
            return disk::bind(&path, target, readonly, noatime).map_err(failed);
        }
        let device =
            if self.is(Mutant::BlockIsAFile) { path } else { disk::attach(&path, readonly).map_err(failed)? };
        disk::bind(&device, target, readonly, false).map_err(failed)
    }

    fn check_publish(&self, state: &State, request: &NodePublishVolumeRequest) -> Result<(), Status> {
        if request.staging_target_path.is_empty() && !self.is(Mutant::PublishesWithoutStaging) {
            return Err(Status::failed_precondition("staging_target_path is not set"));
        }
        if request.target_path.len() > 120 && self.is(Mutant::RefusesLongPaths) {
            return Err(Status::invalid_argument("the path is too long"));
        }
        if !state.volumes.contains_key(&request.volume_id) && !self.is(Mutant::PublishesUnknown) {
            return Err(no_volume(&request.volume_id));
        }
        let staged = state.staged.get(&request.staging_target_path) == Some(&request.volume_id);
        if !staged && !self.is(Mutant::PublishesWithoutStaging) && !self.is(Mutant::PublishesUnknown) {
            return Err(Status::failed_precondition("the volume is not staged there"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Node for Plugin {
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let rpcs = [
            Rpc::StageUnstageVolume,
            Rpc::GetVolumeStats,
            Rpc::ExpandVolume,
            Rpc::SingleNodeMultiWriter,
            Rpc::GetVolumeHealth,
            Rpc::GetStorageHealth,
        ];
        let without = self.is(Mutant::ExpansionWithoutRpc).then_some(Rpc::ExpandVolume);
        let capability = |rpc: Rpc| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(node_service_capability::Rpc { r#type: rpc.into() })),
        };
        let rpcs = rpcs.into_iter().filter(|rpc| Some(*rpc) != without);
        ok(NodeGetCapabilitiesResponse { capabilities: rpcs.map(capability).collect() })
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let mut topology = here();
        if self.is(Mutant::BadTopologyKey) {
            topology.segments.insert("-zone".to_owned(), "a".to_owned());
        }
        let node_id = if self.is(Mutant::LongNodeId) { "n".repeat(300) } else { NODE.to_owned() };
        let max_volumes_per_node = if self.is(Mutant::NegativeMostVolumes) { -1 } else { 0 };
        ok(NodeGetInfoResponse { node_id, max_volumes_per_node, accessible_topology: Some(topology) })
    }

    async fn node_stage_volume(&self, request: Request<NodeStageVolumeRequest>) -> Answer<NodeStageVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::StagesWithoutId)?;
        self.required("staging_target_path", &request.staging_target_path, Mutant::StagesWithoutId)?;
        self.check_capability(request.volume_capability.as_ref(), Mutant::StagesWithoutCapability)?;
        self.middle("NodeStageVolume").await?;
        let mut state = self.state();
        let volume = state.volumes.get(&request.volume_id).cloned();
        let Some(volume) = volume else {
            let forgiving = [Mutant::StagesUnknown, Mutant::StagesWithoutId].iter().any(|own| self.is(*own));
            return if forgiving { ok(NodeStageVolumeResponse {}) } else { Err(no_volume(&request.volume_id)) };
        };
        let staging = Path::new(&request.staging_target_path);
        let known = state.staged.contains_key(&request.staging_target_path);
        if known && self.is(Mutant::StageTwiceFails) {
            return Err(Status::internal("it is staged already"));
        }
        state.staged.insert(request.staging_target_path.clone(), volume.id.clone());
        self.save(&state);
        let again = self.is(Mutant::StageStacksMounts);
        if !volume.block && (again || !disk::is_mounted(staging).map_err(failed)?) {
            disk::bind(&self.volume_path(&volume.id), staging, false, false).map_err(failed)?;
        }
        ok(NodeStageVolumeResponse {})
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::UnstagesWithoutId)?;
        self.required("staging_target_path", &request.staging_target_path, Mutant::UnstagesWithoutId)?;
        let mut state = self.state();
        disk::unbind(Path::new(&request.staging_target_path), true).map_err(failed)?;
        let was = state.staged.remove(&request.staging_target_path);
        if was.is_none() && self.is(Mutant::UnstageTwiceFails) {
            return Err(Status::internal("it is not staged"));
        }
        if self.is(Mutant::UnstageEmptiesTheVolume)
            && let Some(volume) = state.volumes.get(&request.volume_id)
        {
            disk::make(&self.volume_path(&volume.id), volume.block, volume.capacity).map_err(failed)?;
        }
        self.save(&state);
        ok(NodeUnstageVolumeResponse {})
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::PublishesWithoutId)?;
        self.required("target_path", &request.target_path, Mutant::PublishesWithoutId)?;
        self.check_capability(request.volume_capability.as_ref(), Mutant::PublishesWithoutCapability)?;
        if [&request.volume_id, &request.target_path].iter().any(|own| own.is_empty()) {
            return ok(NodePublishVolumeResponse {});
        }
        self.middle("NodePublishVolume").await?;
        if self.is(Mutant::PublishesAtOnceTwice) {
            let mounted = disk::is_mounted(Path::new(&request.target_path)).map_err(failed)?;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            if !mounted {
                self.bind(&request.volume_id, &request)?;
            }
        }
        let mut state = self.state();
        self.check_publish(&state, &request)?;
        if self.is(Mutant::PublishesUnknown) && !state.volumes.contains_key(&request.volume_id) {
            return ok(NodePublishVolumeResponse {});
        }
        let own = Published {
            volume: request.volume_id.clone(),
            readonly: request.readonly,
            capability: format!("{:?}", request.volume_capability),
            several: request.volume_capability.as_ref().is_some_and(several),
        };
        let mounted = disk::is_mounted(Path::new(&request.target_path)).map_err(failed)?;
        match state.published.get(&request.target_path) {
            Some(_) if self.is(Mutant::PublishTwiceFails) => return Err(Status::internal("it is published already")),
            Some(known) if *known != own && !self.is(Mutant::PublishIgnoresReadonly) => {
                return Err(Status::already_exists("it is published there otherwise"));
            }
            Some(_) if mounted && !self.is(Mutant::PublishStacksMounts) => return ok(NodePublishVolumeResponse {}),
            _ => {}
        }
        let elsewhere = state.published.iter().any(|(target, known)| {
            known.volume == request.volume_id && *target != request.target_path && !(known.several && own.several)
        });
        let strict = self.is(Mutant::SecondWriterRefused)
            && state.published.values().any(|known| known.volume == request.volume_id);
        let lenient = [Mutant::SecondTargetAccepted, Mutant::SecondTargetOfASingleWriter];
        if (elsewhere && !lenient.iter().any(|own| self.is(*own))) || strict {
            return Err(Status::failed_precondition("it is published at another target"));
        }
        state.published.insert(request.target_path.clone(), own);
        self.save(&state);
        if !self.is(Mutant::PublishDoesNothing) && !self.is(Mutant::PublishesAtOnceTwice) {
            self.bind(&request.volume_id, &request)?;
        }
        ok(NodePublishVolumeResponse {})
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::UnpublishesWithoutId)?;
        self.required("target_path", &request.target_path, Mutant::UnpublishesWithoutId)?;
        self.middle("NodeUnpublishVolume").await?;
        let mut state = self.state();
        if self.is(Mutant::UnpublishLeavesTheMount) {
            return ok(NodeUnpublishVolumeResponse {});
        }
        if self.is(Mutant::UnpublishOfUnknownIsInternal) && !state.volumes.contains_key(&request.volume_id) {
            return Err(Status::internal("there is no such volume"));
        }
        if !state.published.contains_key(&request.target_path) {
            return match self.is(Mutant::UnpublishTwiceFails) {
                true => Err(Status::internal("it is not published")),
                false => ok(NodeUnpublishVolumeResponse {}),
            };
        }
        disk::unbind(Path::new(&request.target_path), self.is(Mutant::UnpublishLeavesTarget)).map_err(failed)?;
        state.published.remove(&request.target_path);
        let used = state.published.values().any(|own| own.volume == request.volume_id);
        let path = self.volume_path(&request.volume_id);
        if path.is_file() && !used {
            disk::detach(&path).map_err(failed)?;
        }
        self.save(&state);
        ok(NodeUnpublishVolumeResponse {})
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::StatsWithoutId)?;
        self.required("volume_path", &request.volume_path, Mutant::StatsWithoutId)?;
        let state = self.state();
        let known = state
            .published
            .get(&request.volume_path)
            .map(|own| &own.volume)
            .or_else(|| state.staged.get(&request.volume_path));
        let Some(volume) = known.filter(|own| **own == request.volume_id).and_then(|own| state.volumes.get(own)) else {
            let forgiving = self.is(Mutant::StatsOfAnyPath) || self.is(Mutant::StatsWithoutId);
            return match forgiving {
                true => ok(NodeGetVolumeStatsResponse::default()),
                false => Err(Status::not_found("the volume is not at this path")),
            };
        };
        let total = if self.is(Mutant::StatsWithoutTotal) { 0 } else { volume.capacity };
        let available = if self.is(Mutant::NegativeStats) { -1 } else { total / 2 };
        let bytes = VolumeUsage { available, total, used: 0, unit: volume_usage::Unit::Bytes.into() };
        ok(NodeGetVolumeStatsResponse { usage: vec![bytes] })
    }

    async fn node_expand_volume(&self, request: Request<NodeExpandVolumeRequest>) -> Answer<NodeExpandVolumeResponse> {
        if self.is(Mutant::ExpansionWithoutRpc) {
            return Err(Status::unimplemented("no"));
        }
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::NodeExpandsWithoutId)?;
        self.required("volume_path", &request.volume_path, Mutant::NodeExpandsWithoutId)?;
        let state = self.state();
        match state.volumes.get(&request.volume_id) {
            Some(volume) => {
                let path = self.volume_path(&volume.id);
                if volume.block {
                    disk::refresh(&path).map_err(failed)?;
                }
                if self.is(Mutant::NodeExpandEmptiesTheVolume) && !volume.block {
                    std::fs::write(path.join("above"), "").map_err(failed)?;
                }
                ok(NodeExpandVolumeResponse { capacity_bytes: volume.capacity })
            }
            None if self.is(Mutant::NodeExpandsUnknown) || self.is(Mutant::NodeExpandsWithoutId) => {
                ok(NodeExpandVolumeResponse::default())
            }
            None => Err(no_volume(&request.volume_id)),
        }
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Answer<NodeGetVolumeHealthResponse> {
        let id = request.into_inner().volume_id;
        self.health(&id).map(|health| tonic::Response::new(NodeGetVolumeHealthResponse { volume_health: Some(health) }))
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Answer<NodeGetStorageHealthResponse> {
        let reason = if self.is(Mutant::StorageHealthWithoutReason) { "" } else { "FewPaths" };
        let health = node_get_storage_health_response::StorageBackendHealth {
            status: StorageHealthErrorType::StorageDegraded.into(),
            reason: reason.to_owned(),
            ..Default::default()
        };
        ok(NodeGetStorageHealthResponse { backend_health: vec![health] })
    }
}
