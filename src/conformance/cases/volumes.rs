//! ValidateVolumeCapabilities, ControllerGetVolume and GetCapacity.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::Kind;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);

area! {
    "validate/confirmed", "ValidateVolumeCapabilities", [CREATES] => |kit| confirmed(kit);
    "validate/not-supported", "ValidateVolumeCapabilities", [CREATES] => |kit| not_supported(kit);
    "validate/not-found", "ValidateVolumeCapabilities Errors", [CREATES] => |kit| validate_not_found(kit);
    "get-volume/answer", "ControllerGetVolume", [CREATES, Need::Controller(ControllerRpc::GetVolume)]
        => |kit| get_volume(kit);
    "get-volume/not-found", "ControllerGetVolume Errors", [CREATES, Need::Controller(ControllerRpc::GetVolume)]
        => |kit| get_not_found(kit);
    "get-capacity/answer", "GetCapacity", [Need::Controller(ControllerRpc::GetCapacity)] => |kit| capacity(kit);
}

fn validate(kit: &Kit, volume: &Volume, kind: Kind) -> ValidateVolumeCapabilitiesRequest {
    ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id.clone(),
        volume_context: volume.volume_context.clone(),
        volume_capabilities: vec![kit.capability(kind)],
        parameters: kit.params().parameters.clone(),
        ..Default::default()
    }
}

/// "This call SHALL return `confirmed` only if all the volume capabilities specified in the request are supported".
async fn confirmed(kit: &Kit) -> Checked {
    let volume = kit.volume("validate").await?;
    let request = validate(kit, &volume, kit.kind());
    let answered = kit.ok(request.clone()).await?;
    let Some(confirmed) = &answered.confirmed else {
        return Err(answered.wrong("confirmed: the volume was created with this capability"));
    };
    let all = request.volume_capabilities.iter().all(|own| confirmed.volume_capabilities.contains(own));
    answered.must(all, "the capabilities of the request in `confirmed`, where they are REQUIRED")?;
    kit.ok(request).await?.same_as(&answered.answer, "the same answer again: this operation MUST be idempotent")
}

/// What the plugin refuses in CreateVolume it cannot confirm.
async fn not_supported(kit: &Kit) -> Checked {
    if !kit.params().access.is_empty() {
        return Err(Stop::Skipped("`access` in --params says what is tried, not what the plugin refuses".to_owned()));
    }
    let kinds = [Kind::Mount, Kind::Block];
    let Some(kind) = kinds.into_iter().find(|kind| !kit.uses(*kind)) else {
        return Err(Stop::Skipped("the plugin has volumes of both access types".to_owned()));
    };
    let volume = kit.volume("validate").await?;
    let request = validate(kit, &volume, kind);
    let why = "the volume does not support the capability";
    match kit.ok_or_refused(request, &[Code::InvalidArgument], why).await? {
        Some(answered) => answered.must(answered.confirmed.is_none(), "no `confirmed` for what CreateVolume refuses"),
        None => Ok(()),
    }
}

async fn validate_not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = validate(kit, &volume, kit.kind());
    kit.refused(request, &[Code::NotFound], "there is no such volume").await
}

async fn get_volume(kit: &Kit) -> Checked {
    let volume = kit.volume("get").await?;
    let answered = kit.ok(ControllerGetVolumeRequest { volume_id: volume.volume_id.clone() }).await?;
    answered.must(answered.status.is_some(), "a status, which is REQUIRED")?;
    let Some(got) = answered.volume.as_ref() else { return Err(answered.wrong("a volume, which is REQUIRED")) };
    answered.must(got.volume_id == volume.volume_id, "the volume that was asked for")?;
    let wants = "the volume_context of CreateVolume: a volume SHALL always report the same";
    answered.must(got.volume_context == volume.volume_context || got.volume_context.is_empty(), wants)?;
    let wants = format!("the capacity_bytes of CreateVolume, {}", volume.capacity_bytes);
    answered.must(got.capacity_bytes == volume.capacity_bytes, wants)
}

async fn get_not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = ControllerGetVolumeRequest { volume_id: volume.volume_id };
    kit.refused(request, &[Code::NotFound], "the volume does not exist any more").await
}

/// "The value of this field MUST NOT be negative."
async fn capacity(kit: &Kit) -> Checked {
    let constrained = kit.plugin().offers().service(PluginService::VolumeAccessibilityConstraints);
    let with_all = GetCapacityRequest {
        volume_capabilities: vec![kit.capability(kit.kind())],
        parameters: kit.params().parameters.clone(),
        accessible_topology: kit.topology().filter(|_| constrained),
    };
    for request in [GetCapacityRequest { parameters: with_all.parameters.clone(), ..Default::default() }, with_all] {
        let answered = kit.ok(request).await?;
        answered.must(answered.available_capacity >= 0, "no negative available_capacity")?;
        let largest = answered.maximum_volume_size.unwrap_or(i64::MAX);
        let smallest = answered.minimum_volume_size.unwrap_or(0);
        answered.must(largest >= 0, "no negative maximum_volume_size")?;
        answered.must(smallest >= 0, "no negative minimum_volume_size")?;
    }
    Ok(())
}
