//! ControllerPublishVolume and ControllerUnpublishVolume.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::lists::all_entries;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const ATTACHES: Need = Need::Controller(ControllerRpc::PublishUnpublishVolume);

area! {
    "controller-publish/again", "ControllerPublishVolume", [CREATES, ATTACHES] => |kit| again(kit);
    "controller-publish/volume-not-found", "ControllerPublishVolume Errors", [CREATES, ATTACHES]
        => |kit| volume_not_found(kit);
    "controller-publish/node-not-found", "ControllerPublishVolume Errors", [CREATES, ATTACHES]
        => |kit| node_not_found(kit);
    "controller-publish/again-readonly", "ControllerPublishVolume Errors",
        [CREATES, ATTACHES, Need::Controller(ControllerRpc::PublishReadonly)] => |kit| again_readonly(kit);
    "controller-publish/published-nodes", "ListVolumes",
        [CREATES, ATTACHES, Need::Controller(ControllerRpc::ListVolumes),
         Need::Controller(ControllerRpc::ListVolumesPublishedNodes)] => |kit| published_nodes(kit);
    "controller-unpublish/again", "ControllerUnpublishVolume", [CREATES, ATTACHES] => |kit| unpublish_again(kit);
    "controller-unpublish/all-nodes", "ControllerUnpublishVolume", [CREATES, ATTACHES] => |kit| all_nodes(kit);
}

async fn request(kit: &Kit) -> Checked<ControllerPublishVolumeRequest> {
    let volume = kit.volume("attach").await?;
    Ok(ControllerPublishVolumeRequest {
        volume_id: volume.volume_id,
        node_id: kit.plugin().offers().node_id.clone(),
        volume_capability: Some(kit.capability_in(kit.kind(), Mode::SingleNodeWriter)),
        volume_context: volume.volume_context,
        ..Default::default()
    })
}

fn unpublish(published: &ControllerPublishVolumeRequest) -> ControllerUnpublishVolumeRequest {
    ControllerUnpublishVolumeRequest {
        volume_id: published.volume_id.clone(),
        node_id: published.node_id.clone(),
        ..Default::default()
    }
}

/// "has already been published at the node … the Plugin MUST reply `0 OK`".
async fn again(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    let first = kit.ok(request.clone()).await?;
    kit.ok(request).await?.same_as(&first.answer, "the same publish_context: its contents SHALL NOT be mutable")
}

async fn volume_not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.volume_id,
        node_id: kit.plugin().offers().node_id.clone(),
        volume_capability: Some(kit.capability(kit.kind())),
        ..Default::default()
    };
    kit.refused(request, &[Code::NotFound], "there is no such volume").await
}

async fn node_not_found(kit: &Kit) -> Checked {
    let request =
        ControllerPublishVolumeRequest { node_id: "conformance-no-such-node".to_owned(), ..request(kit).await? };
    kit.refused(request, &[Code::NotFound], "there is no such node").await
}

async fn again_readonly(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    kit.ok(request.clone()).await?;
    let other = ControllerPublishVolumeRequest { readonly: true, ..request };
    kit.refused(other, &[Code::AlreadyExists], "it is published, and incompatible with the readonly flag").await
}

async fn published_nodes(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    kit.ok(request.clone()).await?;
    let entries = all_entries(kit, 0).await?;
    let own = entries.iter().find(|entry| entry.volume.as_ref().is_some_and(|own| own.volume_id == request.volume_id));
    let nodes = own.and_then(|entry| entry.status.as_ref()).map(|status| status.published_node_ids.clone());
    if nodes.as_ref().is_some_and(|nodes| nodes.contains(&request.node_id)) {
        return Ok(());
    }
    let wants = format!("the node {} in published_node_ids of {}", request.node_id, request.volume_id);
    Err(Stop::failed("ListVolumes, after ControllerPublishVolume", format_args!("{nodes:?}"), wants))
}

/// "If the volume … is not attached to the node …, the Plugin MUST reply `0 OK`."
async fn unpublish_again(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    kit.ok(request.clone()).await?;
    kit.ok(unpublish(&request)).await?;
    kit.ok(unpublish(&request)).await.map(drop)
}

/// "If the value is unset, the SP MUST unpublish the volume from all nodes it is published to."
async fn all_nodes(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    kit.ok(request.clone()).await?;
    kit.ok(ControllerUnpublishVolumeRequest { node_id: String::new(), ..unpublish(&request) }).await?;
    kit.ok(DeleteVolumeRequest { volume_id: request.volume_id, ..Default::default() }).await.map(drop)
}
