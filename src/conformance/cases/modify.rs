//! ControllerModifyVolume.

use std::collections::HashMap;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::failure::Checked;
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const MODIFIES: Need = Need::Controller(ControllerRpc::ModifyVolume);

area! {
    "modify/again", "ControllerModifyVolume", [CREATES, MODIFIES, Need::MutableParameters] => |kit| again(kit);
    "modify/create-with", "CreateVolume", [CREATES, MODIFIES, Need::MutableParameters] => |kit| create_with(kit);
    "modify/unknown-parameter", "ControllerModifyVolume Errors", [CREATES, MODIFIES] => |kit| unknown(kit);
    "modify/not-found", "ControllerModifyVolume Errors", [CREATES, MODIFIES] => |kit| not_found(kit);
}

fn request(volume: &Volume, mutable_parameters: &HashMap<String, String>) -> ControllerModifyVolumeRequest {
    let mutable_parameters = mutable_parameters.clone();
    ControllerModifyVolumeRequest { volume_id: volume.volume_id.clone(), mutable_parameters, ..Default::default() }
}

/// "This operation MUST be idempotent. The new mutable parameters … can be different from the existing".
async fn again(kit: &Kit) -> Checked {
    let volume = kit.volume("modify").await?;
    for parameters in &kit.params().mutable_parameters {
        kit.ok(request(&volume, parameters)).await?;
        kit.ok(request(&volume, parameters)).await?;
    }
    Ok(())
}

async fn create_with(kit: &Kit) -> Checked {
    for mutable_parameters in kit.params().mutable_parameters.clone() {
        let request = CreateVolumeRequest { mutable_parameters, ..kit.request("mutable") };
        let first = kit.ok(request.clone()).await?;
        kit.ok(request).await?.same_as(&first.answer, "the same answer again, with the same mutable_parameters")?;
    }
    Ok(())
}

fn wrong() -> HashMap<String, String> {
    HashMap::from([("conformance.no-such-parameter".to_owned(), "x".to_owned())])
}

async fn unknown(kit: &Kit) -> Checked {
    let volume = kit.volume("modify").await?;
    let request = request(&volume, &wrong());
    kit.refused(request, &[Code::InvalidArgument], "an invalid mutable parameter key").await
}

async fn not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let parameters = kit.params().mutable_parameters.first().cloned().unwrap_or_else(wrong);
    // Without parameters that are known to be right, the plugin may look at these first.
    let codes = [Code::NotFound, Code::InvalidArgument];
    let allowed = if kit.params().mutable_parameters.is_empty() { &codes[..] } else { &codes[..1] };
    kit.refused(request(&volume, &parameters), allowed, "there is no such volume").await
}
