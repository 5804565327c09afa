//! What the node must refuse: fields that are missing, and volumes that do not exist.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::create_volume::range;
use crate::conformance::failure::Checked;
use crate::conformance::kit::{Field, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::using::Used;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const STAGES: Need = Need::Node(NodeRpc::StageUnstageVolume);
const STATS: Need = Need::Node(NodeRpc::GetVolumeStats);
const EXPANDS: Need = Need::Node(NodeRpc::ExpandVolume);

area! {
    "stage/required-fields", "Error Scheme", [CREATES, Need::Content, STAGES] => |kit| stage_required(kit);
    "publish/required-fields", "Error Scheme", [CREATES, Need::Content] => |kit| publish_required(kit);
    "publish/without-staging", "NodePublishVolume Errors", [CREATES, Need::Content, STAGES]
        => |kit| without_staging(kit);
    "unpublish/required-fields", "Error Scheme", [CREATES, Need::Content] => |kit| unpublish_required(kit);
    "unstage/required-fields", "Error Scheme", [CREATES, Need::Content, STAGES] => |kit| unstage_required(kit);
    "stats/required-fields", "Error Scheme", [CREATES, Need::Content, STATS] => |kit| stats_required(kit);
    "node-expand/required-fields", "Error Scheme", [CREATES, Need::Content, EXPANDS] => |kit| expand_required(kit);
    "stage/not-found", "NodeStageVolume Errors", [CREATES, Need::Content, STAGES] => |kit| stage_not_found(kit);
    "publish/not-found", "NodePublishVolume Errors", [CREATES, Need::Content] => |kit| publish_not_found(kit);
    "unpublish/not-found", "NodeUnpublishVolume Errors", [CREATES, Need::Content] => |kit| unpublish_not_found(kit);
    "node-expand/not-found", "NodeExpandVolume Errors", [CREATES, Need::Content, EXPANDS]
        => |kit| expand_not_found(kit);
}

async fn brought(kit: &Kit) -> Checked<Used> {
    let volume = kit.create(kit.request_for("refusals", kit.kind())).await?;
    kit.bring(&volume, kit.kind()).await
}

/// A volume with an id that the plugin made, of which nothing is left. Its paths are those of a volume that exists.
async fn not_there(kit: &Kit) -> Checked<Used> {
    let gone = kit.deleted_volume().await?;
    let volume = kit.volume("there").await?;
    let mut used = kit.attach(&volume, kit.kind(), Mode::SingleNodeWriter).await?;
    used.volume = gone;
    Ok(used)
}

async fn stage_required(kit: &Kit) -> Checked {
    let volume = kit.create(kit.request_for("refusals", kit.kind())).await?;
    let used = kit.attach(&volume, kit.kind(), Mode::SingleNodeWriter).await?;
    let Some(full) = used.stage_request(kit) else { return Ok(()) };
    let fields: [Field<NodeStageVolumeRequest>; 5] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("staging_target_path", |request| request.staging_target_path.clear()),
        ("volume_capability", |request| request.volume_capability = None),
        ("volume_capability.access_type", |request| {
            request.volume_capability.iter_mut().for_each(|own| own.access_type = None);
        }),
        ("volume_capability.access_mode", |request| {
            request.volume_capability.iter_mut().for_each(|own| own.access_mode = None);
        }),
    ];
    kit.required(full, &fields).await
}

async fn publish_required(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    let full = used.publish_request(kit, "pod").await?;
    let fields: [Field<NodePublishVolumeRequest>; 5] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("target_path", |request| request.target_path.clear()),
        ("volume_capability", |request| request.volume_capability = None),
        ("volume_capability.access_type", |request| {
            request.volume_capability.iter_mut().for_each(|own| own.access_type = None);
        }),
        ("volume_capability.access_mode", |request| {
            request.volume_capability.iter_mut().for_each(|own| own.access_mode = None);
        }),
    ];
    kit.required(full, &fields).await
}

async fn without_staging(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    let request =
        NodePublishVolumeRequest { staging_target_path: String::new(), ..used.publish_request(kit, "pod").await? };
    let why = "STAGE_UNSTAGE_VOLUME is advertised, and no staging_target_path was set";
    kit.refused(request, &[Code::FailedPrecondition], why).await
}

async fn unpublish_required(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    kit.publish(&used, "pod").await?;
    let fields: [Field<NodeUnpublishVolumeRequest>; 2] =
        [("volume_id", |request| request.volume_id.clear()), ("target_path", |request| request.target_path.clear())];
    kit.required(used.unpublish_request("pod"), &fields).await
}

async fn unstage_required(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    let Some(full) = used.unstage_request() else { return Ok(()) };
    let fields: [Field<NodeUnstageVolumeRequest>; 2] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("staging_target_path", |request| request.staging_target_path.clear()),
    ];
    kit.required(full, &fields).await
}

async fn stats_required(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    let target = kit.publish(&used, "pod").await?;
    let full = NodeGetVolumeStatsRequest {
        volume_id: used.volume.volume_id.clone(),
        volume_path: target.display().to_string(),
        staging_target_path: used.staging(),
    };
    let fields: [Field<NodeGetVolumeStatsRequest>; 2] =
        [("volume_id", |request| request.volume_id.clear()), ("volume_path", |request| request.volume_path.clear())];
    kit.required(full, &fields).await
}

fn expand_request(kit: &Kit, used: &Used) -> NodeExpandVolumeRequest {
    NodeExpandVolumeRequest {
        volume_id: used.volume.volume_id.clone(),
        volume_path: used.target("pod").display().to_string(),
        capacity_range: range(kit.params().size(), 0),
        staging_target_path: used.staging(),
        volume_capability: Some(kit.capability(used.kind)),
        ..Default::default()
    }
}

async fn expand_required(kit: &Kit) -> Checked {
    let used = brought(kit).await?;
    kit.publish(&used, "pod").await?;
    let fields: [Field<NodeExpandVolumeRequest>; 2] =
        [("volume_id", |request| request.volume_id.clear()), ("volume_path", |request| request.volume_path.clear())];
    kit.required(expand_request(kit, &used), &fields).await
}

const GONE: &str = "there is no such volume";

async fn stage_not_found(kit: &Kit) -> Checked {
    let used = not_there(kit).await?;
    match used.stage_request(kit) {
        Some(request) => kit.refused(request, &[Code::NotFound], GONE).await,
        None => Ok(()),
    }
}

async fn publish_not_found(kit: &Kit) -> Checked {
    let used = not_there(kit).await?;
    let request = used.publish_request(kit, "pod").await?;
    // Its staging path is one where it was never staged, which may be seen first.
    let codes = [Code::NotFound, Code::FailedPrecondition];
    let allowed = if used.staging().is_empty() { &codes[..1] } else { &codes[..] };
    kit.refused(request, allowed, GONE).await
}

/// NOT_FOUND by the table, and OK as "This operation MUST be idempotent" is read by many: both are right.
async fn unpublish_not_found(kit: &Kit) -> Checked {
    let used = not_there(kit).await?;
    kit.ok_or_refused(used.unpublish_request("pod"), &[Code::NotFound], GONE).await?;
    match used.unstage_request() {
        Some(request) => kit.ok_or_refused(request, &[Code::NotFound], GONE).await.map(drop),
        None => Ok(()),
    }
}

async fn expand_not_found(kit: &Kit) -> Checked {
    let used = not_there(kit).await?;
    kit.refused(expand_request(kit, &used), &[Code::NotFound], GONE).await
}
