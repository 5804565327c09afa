//! A well-formed request for each RPC, about things that do not exist.

use std::collections::HashMap;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::group_controller_service_capability::rpc::Type as GroupRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::kit::Kit;
use super::undo::Tracked;
use crate::client::{Call, Offers};

const NO_VOLUME: &str = "conformance-no-such-volume";
const NO_SNAPSHOT: &str = "conformance-no-such-snapshot";

/// An RPC that was called with its sample: whether it is advertised, and the code that came.
pub(super) struct Tried {
    pub(super) rpc: &'static str,
    pub(super) advertised: bool,
    pub(super) code: Code,
    pub(super) sent: String,
}

async fn one<C: Tracked>(kit: &Kit, tried: &mut Vec<Tried>, advertised: bool, request: C) {
    let sent = format!("{} {request:?}", C::NAME);
    let code = kit.send(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
    tried.push(Tried { rpc: <C as Call>::NAME, advertised, code, sent });
}

/// Calls every RPC of the controllers.
pub(super) async fn controllers(kit: &Kit) -> Vec<Tried> {
    let plugin = kit.plugin();
    let offers = plugin.offers();
    let mut tried = Vec::new();
    let all = &mut tried;
    let service = offers.service(PluginService::ControllerService);
    let has = |rpc| offers.controller(rpc);
    let capability = || Some(kit.capability(kit.kind()));
    let volume_id = || NO_VOLUME.to_owned();
    one(kit, all, service, ControllerGetCapabilitiesRequest {}).await;
    one(kit, all, has(ControllerRpc::CreateDeleteVolume), kit.request("sample")).await;
    let request = DeleteVolumeRequest { volume_id: volume_id(), ..Default::default() };
    one(kit, all, has(ControllerRpc::CreateDeleteVolume), request).await;
    let node_id = super::using::node(&plugin);
    let request = ControllerPublishVolumeRequest {
        volume_id: volume_id(),
        node_id: node_id.clone(),
        volume_capability: capability(),
        ..Default::default()
    };
    one(kit, all, offers.attaches(), request).await;
    let request = ControllerUnpublishVolumeRequest { volume_id: volume_id(), node_id, ..Default::default() };
    one(kit, all, offers.attaches(), request).await;
    let request = ValidateVolumeCapabilitiesRequest {
        volume_id: volume_id(),
        volume_capabilities: capability().into_iter().collect(),
        ..Default::default()
    };
    one(kit, all, service, request).await;
    one(kit, all, has(ControllerRpc::ListVolumes), ListVolumesRequest::default()).await;
    one(kit, all, has(ControllerRpc::GetCapacity), GetCapacityRequest::default()).await;
    let request = ControllerGetVolumeRequest { volume_id: volume_id() };
    one(kit, all, has(ControllerRpc::GetVolume), request).await;
    let request = ControllerExpandVolumeRequest {
        volume_id: volume_id(),
        capacity_range: Some(CapacityRange { required_bytes: kit.params().larger(), limit_bytes: 0 }),
        volume_capability: capability(),
        ..Default::default()
    };
    one(kit, all, has(ControllerRpc::ExpandVolume), request).await;
    let request = ControllerModifyVolumeRequest {
        volume_id: volume_id(),
        mutable_parameters: HashMap::from([("conformance".to_owned(), "sample".to_owned())]),
        ..Default::default()
    };
    one(kit, all, has(ControllerRpc::ModifyVolume), request).await;
    let listed = has(ControllerRpc::ListVolumeHealth);
    one(kit, all, listed, ControllerListVolumeHealthRequest::default()).await;
    let request = ControllerGetVolumeHealthRequest { volume_id: volume_id(), ..Default::default() };
    one(kit, all, listed || has(ControllerRpc::GetVolumeHealth), request).await;
    snapshots(kit, all, offers).await;
    groups(kit, all, offers).await;
    tried
}

async fn snapshots(kit: &Kit, all: &mut Vec<Tried>, offers: &Offers) {
    let has = |rpc| offers.controller(rpc);
    let snapshot_id = || NO_SNAPSHOT.to_owned();
    let request = CreateSnapshotRequest {
        source_volume_id: NO_VOLUME.to_owned(),
        name: kit.name("sample"),
        parameters: kit.params().snapshot_parameters.clone(),
        ..Default::default()
    };
    one(kit, all, has(ControllerRpc::CreateDeleteSnapshot), request).await;
    let request = DeleteSnapshotRequest { snapshot_id: snapshot_id(), ..Default::default() };
    one(kit, all, has(ControllerRpc::CreateDeleteSnapshot), request).await;
    one(kit, all, has(ControllerRpc::ListSnapshots), ListSnapshotsRequest::default()).await;
    let request = GetSnapshotRequest { snapshot_id: snapshot_id(), ..Default::default() };
    one(kit, all, has(ControllerRpc::GetSnapshot), request).await;
}

async fn groups(kit: &Kit, all: &mut Vec<Tried>, offers: &Offers) {
    let has = offers.group(GroupRpc::CreateDeleteGetVolumeGroupSnapshot);
    let group_snapshot_id = || "conformance-no-such-group".to_owned();
    let snapshot_ids = || vec![NO_SNAPSHOT.to_owned()];
    let service = offers.service(PluginService::GroupControllerService);
    one(kit, all, service, GroupControllerGetCapabilitiesRequest {}).await;
    let request = CreateVolumeGroupSnapshotRequest {
        name: kit.name("sample"),
        source_volume_ids: vec![NO_VOLUME.to_owned()],
        parameters: kit.params().group_snapshot_parameters.clone(),
        ..Default::default()
    };
    one(kit, all, has, request).await;
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group_snapshot_id(),
        snapshot_ids: snapshot_ids(),
        ..Default::default()
    };
    one(kit, all, has, request).await;
    let request = GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group_snapshot_id(),
        snapshot_ids: snapshot_ids(),
        ..Default::default()
    };
    one(kit, all, has, request).await;
    let metadata = offers.service(PluginService::SnapshotMetadataService);
    let request = GetMetadataAllocatedRequest { snapshot_id: NO_SNAPSHOT.to_owned(), ..Default::default() };
    one(kit, all, metadata, request).await;
    let request = GetMetadataDeltaRequest {
        base_snapshot_id: NO_SNAPSHOT.to_owned(),
        target_snapshot_id: "conformance-no-other-snapshot".to_owned(),
        ..Default::default()
    };
    one(kit, all, metadata, request).await;
}

/// Calls every RPC of the node, with paths at which nothing is.
pub(super) async fn node(kit: &Kit) -> Vec<Tried> {
    let plugin = kit.plugin();
    let offers = plugin.offers();
    let mut tried = Vec::new();
    let all = &mut tried;
    let has = |rpc| offers.node(rpc);
    let serves = offers.serves_node();
    let place = kit.place();
    let (staging, target) = (place.join("staging").display().to_string(), place.join("target").display().to_string());
    let volume_id = || NO_VOLUME.to_owned();
    let capability = || Some(kit.capability(kit.kind()));
    one(kit, all, serves, NodeGetCapabilitiesRequest {}).await;
    one(kit, all, serves, NodeGetInfoRequest {}).await;
    let request = NodeStageVolumeRequest {
        volume_id: volume_id(),
        staging_target_path: staging.clone(),
        volume_capability: capability(),
        ..Default::default()
    };
    one(kit, all, offers.stages(), request).await;
    let request = NodeUnstageVolumeRequest { volume_id: volume_id(), staging_target_path: staging.clone() };
    one(kit, all, offers.stages(), request).await;
    let request = NodePublishVolumeRequest {
        volume_id: volume_id(),
        staging_target_path: if offers.stages() { staging } else { String::new() },
        target_path: target.clone(),
        volume_capability: capability(),
        ..Default::default()
    };
    one(kit, all, serves, request).await;
    let request = NodeUnpublishVolumeRequest { volume_id: volume_id(), target_path: target.clone() };
    one(kit, all, serves, request).await;
    let request =
        NodeGetVolumeStatsRequest { volume_id: volume_id(), volume_path: target.clone(), ..Default::default() };
    one(kit, all, has(NodeRpc::GetVolumeStats), request).await;
    let request = NodeExpandVolumeRequest {
        volume_id: volume_id(),
        volume_path: target.clone(),
        volume_capability: capability(),
        ..Default::default()
    };
    one(kit, all, has(NodeRpc::ExpandVolume), request).await;
    let request =
        NodeGetVolumeHealthRequest { volume_id: volume_id(), volume_publish_path: target, ..Default::default() };
    one(kit, all, has(NodeRpc::GetVolumeHealth), request).await;
    one(kit, all, has(NodeRpc::GetStorageHealth), NodeGetStorageHealthRequest::default()).await;
    tried
}
