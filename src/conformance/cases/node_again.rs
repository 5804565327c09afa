//! Calls of the node again, at once, and with a client that goes.

use std::fs;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::*;
use futures_util::future::join_all;
use tonic::Code;

use super::create_volume::PATIENCE;
use super::node::gone;
use crate::client::blocking;
use crate::conformance::Kind;
use crate::conformance::content;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::using::{Used, volume_of};

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const MOUNT: Need = Need::Uses(Kind::Mount);
const BLOCK: Need = Need::Uses(Kind::Block);
const STAGES: Need = Need::Node(NodeRpc::StageUnstageVolume);

area! {
    "stage/mount/again", "NodeStageVolume", [CREATES, Need::Mounts, STAGES, MOUNT] => |kit| stage(kit, Kind::Mount);
    "stage/block/again", "NodeStageVolume", [CREATES, Need::Mounts, STAGES, BLOCK] => |kit| stage(kit, Kind::Block);
    "publish/mount/again", "NodePublishVolume", [CREATES, Need::Mounts, MOUNT] => |kit| publish(kit, Kind::Mount);
    "publish/block/again", "NodePublishVolume", [CREATES, Need::Mounts, BLOCK] => |kit| publish(kit, Kind::Block);
    "publish/again-readonly", "NodePublishVolume Errors", [CREATES, Need::Content] => |kit| again_readonly(kit);
    "publish/second-target", "NodePublishVolume" SHOULD, [CREATES, Need::Content] => |kit| second_target(kit);
    "publish/second-target-single-writer", "NodePublishVolume" SHOULD,
        [CREATES, Need::Content, Need::Node(NodeRpc::SingleNodeMultiWriter)] => |kit| single_writer(kit);
    "unpublish/mount/again", "NodeUnpublishVolume", [CREATES, Need::Mounts, MOUNT]
        => |kit| unpublish(kit, Kind::Mount);
    "unpublish/block/again", "NodeUnpublishVolume", [CREATES, Need::Mounts, BLOCK]
        => |kit| unpublish(kit, Kind::Block);
    "unstage/again", "NodeUnstageVolume", [CREATES, Need::Content, STAGES] => |kit| unstage(kit);
    "stage/at-once", "Concurrency", [CREATES, Need::Content, STAGES] => |kit| stage_at_once(kit);
    "publish/at-once", "Concurrency", [CREATES, Need::Content] => |kit| publish_at_once(kit);
    "publish/client-gone", "Timeouts", [CREATES, Need::Content] => |kit| client_gone(kit);
    "unpublish/client-gone", "Timeouts", [CREATES, Need::Content] => |kit| unpublish_gone(kit);
}

async fn new(kit: &Kit, kind: Kind) -> Checked<Used> {
    let volume = kit.create(kit.request_for("again", kind)).await?;
    kit.bring(&volume, kind).await
}

/// "already staged to the `staging_target_path`, and is identical to the specified `volume_capability`": OK.
async fn stage(kit: &Kit, kind: Kind) -> Checked {
    let used = new(kit, kind).await?;
    let before = staged(&used).await?;
    if let Some(request) = used.stage_request(kit) {
        kit.ok(request).await?;
    }
    let after = staged(&used).await?;
    if after > before {
        return Err(stacked("NodeStageVolume", before, after));
    }
    kit.publish(&used, "pod").await.map(drop)
}

async fn staged(used: &Used) -> Checked<usize> {
    let staging = used.staging();
    let found =
        blocking("cannot list the mounts at", std::path::Path::new(&staging), crate::conformance::mounts::beneath);
    Ok(found.await?.len())
}

fn stacked(rpc: &str, before: usize, after: usize) -> Stop {
    let came = format!("OK, and {after} mounts where there were {before}");
    Stop::failed(format_args!("{rpc}, and the same again"), came, "no second mount: the operation MUST be idempotent")
}

/// "has already been published at the specified `target_path`, and is compatible …, the Plugin MUST reply `0 OK`".
async fn publish(kit: &Kit, kind: Kind) -> Checked {
    let used = new(kit, kind).await?;
    let request = used.publish_request(kit, "pod").await?;
    let target = kit.publish(&used, "pod").await?;
    let before = used.mounts("pod").await?;
    content::write(&target, kind, 5).await?;
    let again = kit.ok(request).await?;
    used.is_at(&target, &again).await?;
    let after = used.mounts("pod").await?;
    if after > before {
        return Err(stacked("NodePublishVolume", before, after));
    }
    content::compare(&target, kind, 5, "what was written before the call was repeated").await
}

async fn again_readonly(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    kit.publish(&used, "pod").await?;
    let other = NodePublishVolumeRequest { readonly: true, ..used.publish_request(kit, "pod").await? };
    kit.refused(other, &[Code::AlreadyExists], "it is published there, and incompatible with the readonly flag").await
}

/// The second of the tables: with "Non MULTI_NODE_..." another target path is FAILED_PRECONDITION.
async fn second_target(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    kit.publish(&used, "pod").await?;
    let other = used.publish_request(kit, "other").await?;
    let why = "the volume is published at another target_path, and its access mode is SINGLE_NODE_WRITER";
    kit.refused(other, &[Code::FailedPrecondition], why).await
}

/// The second table: a second target is FAILED_PRECONDITION with SINGLE_NODE_SINGLE_WRITER.
async fn single_writer(kit: &Kit) -> Checked {
    let mode = Mode::SingleNodeSingleWriter;
    let mut request = kit.request("single-writer");
    request.volume_capabilities = vec![kit.capability_in(kit.kind(), mode)];
    let why = "the plugin may support SINGLE_NODE_MULTI_WRITER alone";
    let Some(made) = kit.ok_or_refused(request, &[Code::InvalidArgument], why).await? else { return Ok(()) };
    let used = kit.bring_in(&volume_of(&made)?, kit.kind(), mode).await?;
    kit.publish(&used, "pod").await?;
    let other = used.publish_request(kit, "other").await?;
    let why = "the volume is published at another target_path, and its access mode is SINGLE_NODE_SINGLE_WRITER";
    kit.refused(other, &[Code::FailedPrecondition], why).await
}

async fn unpublish(kit: &Kit, kind: Kind) -> Checked {
    let used = new(kit, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    kit.unpublish(&used, "pod").await?;
    gone(&target).await?;
    kit.unpublish(&used, "pod").await?;
    gone(&target).await
}

/// "If the volume … is not staged to the `staging_target_path`, the Plugin MUST reply `0 OK`."
async fn unstage(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    kit.take(&used).await?;
    if let Some(request) = used.unstage_request() {
        kit.ok(request).await?;
    }
    Ok(())
}

const PENDING: &str = "a call is pending";

async fn stage_at_once(kit: &Kit) -> Checked {
    let volume = kit.create(kit.request_for("at-once", kit.kind())).await?;
    let used = kit.attach(&volume, kit.kind(), Mode::SingleNodeWriter).await?;
    let Some(request) = used.stage_request(kit) else { return Ok(()) };
    let all = join_all((0..4).map(|_| kit.ok_or_refused(request.clone(), &[Code::Aborted], PENDING))).await;
    all.into_iter().collect::<Checked<Vec<_>>>()?;
    kit.settled(request).await?;
    let after = staged(&used).await?;
    if after > 1 { Err(stacked("NodeStageVolume at once", 0, after)) } else { Ok(()) }
}

async fn publish_at_once(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    let request = used.publish_request(kit, "pod").await?;
    let all = join_all((0..4).map(|_| kit.ok_or_refused(request.clone(), &[Code::Aborted], PENDING))).await;
    all.into_iter().collect::<Checked<Vec<_>>>()?;
    let last = kit.settled(request).await?;
    used.is_at(&used.target("pod"), &last).await?;
    let after = used.mounts("pod").await?;
    if after > 1 { Err(stacked("NodePublishVolume at once", 0, after)) } else { Ok(()) }
}

async fn client_gone(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    for (number, after) in PATIENCE.into_iter().enumerate() {
        let pod = format!("pod-{number}");
        let request = used.publish_request(kit, &pod).await?;
        kit.abandon(request.clone(), after).await;
        let again = kit.settled(request).await?;
        used.is_at(&used.target(&pod), &again).await?;
        let mounts = used.mounts(&pod).await?;
        if mounts > 1 {
            return Err(stacked("NodePublishVolume without a client", 0, mounts));
        }
        kit.settled(used.unpublish_request(&pod)).await?;
        gone(&used.target(&pod)).await?;
    }
    Ok(())
}

async fn unpublish_gone(kit: &Kit) -> Checked {
    let used = new(kit, kit.kind()).await?;
    for (number, after) in PATIENCE.into_iter().enumerate() {
        let pod = format!("pod-{number}");
        let target = kit.publish(&used, &pod).await?;
        kit.abandon(used.unpublish_request(&pod), after).await;
        kit.settled(used.unpublish_request(&pod)).await?;
        gone(&target).await?;
        // What a plugin must not do is to make the parent of the target its own.
        let parent = target.parent().unwrap_or(&target).to_owned();
        blocking("the orchestrator's folder is gone:", &parent, |parent| fs::metadata(parent).map(drop)).await?;
    }
    Ok(())
}
