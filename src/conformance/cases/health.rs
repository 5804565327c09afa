//! The RPCs about the health of volumes and of the storage.

use std::collections::HashSet;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::client::Call;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::{Answered, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const GETS: Need = Need::Controller(ControllerRpc::GetVolumeHealth);
const LISTS: Need = Need::Controller(ControllerRpc::ListVolumeHealth);
const NODE: Need = Need::Node(NodeRpc::GetVolumeHealth);

area! {
    "health/volume", "ControllerGetVolumeHealth", [CREATES, GETS] => |kit| volume(kit);
    "health/volume-not-found", "ControllerGetVolumeHealth Errors", [CREATES, GETS] => |kit| volume_not_found(kit);
    "health/volume-required-fields", "Error Scheme", [GETS] => |kit| async move {
        kit.refused(ControllerGetVolumeHealthRequest::default(), &[Code::InvalidArgument], "volume_id is REQUIRED").await
    };
    "health/list", "ControllerListVolumeHealth", [CREATES, LISTS] => |kit| list(kit);
    "health/list-invalid-token", "ControllerListVolumeHealth Errors", [LISTS] => |kit| async move {
        let starting_token = "conformance: no such token".to_owned();
        let request = ControllerListVolumeHealthRequest { starting_token, max_entries: 1, ..Default::default() };
        kit.refused(request, &[Code::Aborted], "the starting_token is not valid").await
    };
    "health/list-negative-max-entries", "ControllerListVolumeHealth", [LISTS] => |kit| async move {
        let request = ControllerListVolumeHealthRequest { max_entries: -1, ..Default::default() };
        kit.refused(request, &[Code::InvalidArgument], "the value of max_entries MUST NOT be negative").await
    };
    "health/node-volume", "NodeGetVolumeHealth", [CREATES, Need::Content, NODE] => |kit| node_volume(kit);
    "health/node-volume-not-found", "NodeGetVolumeHealth Errors", [CREATES, NODE] => |kit| node_not_found(kit);
    "health/node-volume-required-fields", "Error Scheme", [NODE] => |kit| async move {
        kit.refused(NodeGetVolumeHealthRequest::default(), &[Code::InvalidArgument], "volume_id is REQUIRED").await
    };
    "health/storage", "NodeGetStorageHealth", [Need::Node(NodeRpc::GetStorageHealth)] => |kit| storage(kit);
}

/// What holds of every message about a volume.
fn check<C: Call>(answered: &Answered<C>, health: &VolumeHealth) -> Checked {
    answered.must(!health.volume_id.is_empty(), "a volume_id, which is REQUIRED")?;
    let mut seen = HashSet::new();
    for entry in &health.health_statuses {
        answered.must(entry.status != 0, "a status of each entry, which is REQUIRED")?;
        answered.must(!entry.reason.is_empty(), "a reason of each entry, which is REQUIRED")?;
        let new = seen.insert((entry.status, entry.reason.clone()));
        answered.must(new, "no two entries of a volume with the same (status, reason)")?;
    }
    Ok(())
}

async fn volume(kit: &Kit) -> Checked {
    let volume = kit.volume("health").await?;
    let request = ControllerGetVolumeHealthRequest { volume_id: volume.volume_id.clone(), ..Default::default() };
    let answered = kit.ok(request).await?;
    let Some(health) = &answered.volume_health else {
        return Err(answered.wrong("a volume_health, which is REQUIRED"));
    };
    answered.must(health.volume_id == volume.volume_id, "the health of the volume that was asked for")?;
    check(&answered, health)
}

async fn volume_not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = ControllerGetVolumeHealthRequest { volume_id: volume.volume_id, ..Default::default() };
    kit.refused(request, &[Code::NotFound], "there is no such volume").await
}

async fn list(kit: &Kit) -> Checked {
    for _ in 0..3 {
        kit.volume("health").await?;
    }
    let mut starting_token = String::new();
    for _ in 0..100_000 {
        let request = ControllerListVolumeHealthRequest { max_entries: 2, starting_token, ..Default::default() };
        let page = kit.ok(request).await?;
        page.must(page.entries.len() <= 2, "no more than max_entries entries")?;
        page.entries.iter().try_for_each(|entry| check(&page, entry))?;
        if page.next_token.is_empty() {
            return Ok(());
        }
        starting_token = page.answer.next_token;
    }
    Err(Stop::failed("ControllerListVolumeHealth, page after page", "100000 pages", "an end"))
}

async fn node_volume(kit: &Kit) -> Checked {
    let volume = kit.create(kit.request_for("health", kit.kind())).await?;
    let used = kit.bring(&volume, kit.kind()).await?;
    let target = kit.publish(&used, "pod").await?;
    let request = NodeGetVolumeHealthRequest {
        volume_id: volume.volume_id.clone(),
        volume_publish_path: target.display().to_string(),
        staging_target_path: used.staging(),
    };
    let answered = kit.ok(request).await?;
    let Some(health) = &answered.volume_health else {
        return Err(answered.wrong("a volume_health, which is REQUIRED"));
    };
    answered.must(health.volume_id == volume.volume_id, "the health of the volume that was asked for")?;
    check(&answered, health)
}

async fn node_not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = NodeGetVolumeHealthRequest { volume_id: volume.volume_id, ..Default::default() };
    kit.refused(request, &[Code::NotFound], "the volume does not exist on the node").await
}

async fn storage(kit: &Kit) -> Checked {
    let answered = kit.ok(NodeGetStorageHealthRequest::default()).await?;
    let mut seen = Vec::new();
    for health in &answered.backend_health {
        answered.must(health.status != 0, "a status of each backend, which is REQUIRED")?;
        answered.must(!health.reason.is_empty(), "a reason of each backend, which is REQUIRED")?;
        let own = (health.status, &health.reason, &health.volume_capability);
        answered.must(!seen.contains(&own), "no two with the same (status, reason, volume_capability)")?;
        seen.push(own);
    }
    Ok(())
}
