//! REQUIRED fields that are missing.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::volume_content_source::{self, SnapshotSource, VolumeSource};
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::failure::Checked;
use crate::conformance::kit::{Field, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const CONTROLLER: Need = Need::Service(PluginService::ControllerService);

area! {
    "create-volume/required-fields", "Error Scheme", [CREATES] => |kit| create_volume(kit);
    "create-volume/source-required-fields", "Error Scheme",
        [CREATES, Need::Controller(ControllerRpc::CloneVolume)] => |kit| source(kit);
    "delete-volume/required-fields", "Error Scheme", [CREATES] => |kit| delete_volume(kit);
    "validate/required-fields", "Error Scheme", [CONTROLLER, CREATES] => |kit| validate(kit);
    "get-volume/required-fields", "Error Scheme", [Need::Controller(ControllerRpc::GetVolume)] => |kit| async move {
        kit.refused(ControllerGetVolumeRequest::default(), &MISSING, "volume_id is REQUIRED").await
    };
    "controller-publish/required-fields", "Error Scheme",
        [CREATES, Need::Controller(ControllerRpc::PublishUnpublishVolume)] => |kit| controller_publish(kit);
    "expand/required-fields", "Error Scheme", [CREATES, Need::Controller(ControllerRpc::ExpandVolume)]
        => |kit| expand(kit);
    "modify/required-fields", "Error Scheme", [CREATES, Need::Controller(ControllerRpc::ModifyVolume)]
        => |kit| modify(kit);
}

const MISSING: [Code; 1] = [Code::InvalidArgument];

async fn create_volume(kit: &Kit) -> Checked {
    let full = kit.request("required");
    kit.required(
        full,
        &[
            ("name", |request| request.name.clear()),
            ("volume_capabilities", |request| request.volume_capabilities.clear()),
            ("volume_capabilities.access_type", |request| {
                request.volume_capabilities.iter_mut().for_each(|own| own.access_type = None);
            }),
            ("volume_capabilities.access_mode", |request| {
                request.volume_capabilities.iter_mut().for_each(|own| own.access_mode = None);
            }),
            ("volume_capabilities.access_mode.mode", |request| {
                request.volume_capabilities.iter_mut().filter_map(|own| own.access_mode.as_mut()).for_each(|own| {
                    own.mode = 0;
                });
            }),
        ],
    )
    .await
}

/// "One of the type fields MUST be specified."
async fn source(kit: &Kit) -> Checked {
    for (field, r#type) in [
        ("type", None),
        ("volume.volume_id", Some(volume_content_source::Type::Volume(VolumeSource::default()))),
        ("snapshot.snapshot_id", Some(volume_content_source::Type::Snapshot(SnapshotSource::default()))),
    ] {
        let volume_content_source = Some(VolumeContentSource { r#type });
        let request = CreateVolumeRequest { volume_content_source, ..kit.request("required") };
        kit.refused(request, &MISSING, &format!("volume_content_source.{field} is REQUIRED, and missing")).await?;
    }
    Ok(())
}

async fn delete_volume(kit: &Kit) -> Checked {
    kit.refused(DeleteVolumeRequest::default(), &MISSING, "volume_id is REQUIRED, and missing").await
}

async fn validate(kit: &Kit) -> Checked {
    let volume = kit.volume("required").await?;
    let full = ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id,
        volume_context: volume.volume_context,
        volume_capabilities: vec![kit.capability(kit.kind())],
        ..Default::default()
    };
    let fields: [Field<ValidateVolumeCapabilitiesRequest>; 2] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("volume_capabilities", |request| request.volume_capabilities.clear()),
    ];
    kit.required(full, &fields).await
}

async fn controller_publish(kit: &Kit) -> Checked {
    let volume = kit.volume("required").await?;
    let full = ControllerPublishVolumeRequest {
        volume_id: volume.volume_id,
        node_id: kit.plugin().offers().node_id.clone(),
        volume_capability: Some(kit.capability(kit.kind())),
        volume_context: volume.volume_context,
        ..Default::default()
    };
    let fields: [Field<ControllerPublishVolumeRequest>; 3] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("node_id", |request| request.node_id.clear()),
        ("volume_capability", |request| request.volume_capability = None),
    ];
    kit.required(full, &fields).await?;
    kit.refused(ControllerUnpublishVolumeRequest::default(), &MISSING, "volume_id is REQUIRED, and missing").await
}

async fn expand(kit: &Kit) -> Checked {
    let volume = kit.volume("required").await?;
    let full = super::expand::request(kit, &volume, kit.params().larger());
    let fields: [Field<ControllerExpandVolumeRequest>; 2] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("capacity_range", |request| {
            request.capacity_range = None;
        }),
    ];
    kit.required(full, &fields).await
}

async fn modify(kit: &Kit) -> Checked {
    let volume = kit.volume("required").await?;
    let full = ControllerModifyVolumeRequest {
        volume_id: volume.volume_id,
        mutable_parameters: kit.params().mutable_parameters.first().cloned().unwrap_or_default(),
        ..Default::default()
    };
    let fields: [Field<ControllerModifyVolumeRequest>; 2] = [
        ("volume_id", |request| request.volume_id.clear()),
        ("mutable_parameters", |request| request.mutable_parameters.clear()),
    ];
    kit.required(full, &fields).await
}
