//! What every error has.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::Status;

use crate::client::code_name;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);

area! {
    "errors/message", "Error Scheme", [CREATES] => |kit| message(kit);
    "errors/details", "Error Scheme", [CREATES] => |kit| details(kit);
}

/// Two errors that every plugin has: a missing field, and a volume that is not there.
async fn provoked(kit: &Kit) -> Vec<(String, Status)> {
    let nameless = CreateVolumeRequest { name: String::new(), ..kit.request("nameless") };
    let unknown = ValidateVolumeCapabilitiesRequest {
        volume_id: "conformance-no-such-volume".to_owned(),
        volume_capabilities: nameless.volume_capabilities.clone(),
        ..Default::default()
    };
    let sent = [format!("CreateVolume {nameless:?}"), format!("ValidateVolumeCapabilities {unknown:?}")];
    let came = [kit.send(nameless).await.err(), kit.send(unknown).await.err()];
    sent.into_iter().zip(came).filter_map(|(sent, came)| came.map(|came| (sent, came))).collect()
}

/// "The status `message` MUST contain a human readable description of error".
async fn message(kit: &Kit) -> Checked {
    for (sent, status) in provoked(kit).await {
        if status.message().trim().is_empty() {
            let came = format!("{} without a message", code_name(status.code()));
            return Err(Stop::failed(sent, came, "a human readable description in the status message"));
        }
    }
    Ok(())
}

/// "The status `details` MUST be empty."
async fn details(kit: &Kit) -> Checked {
    for (sent, status) in provoked(kit).await {
        if !status.details().is_empty() {
            let came = format!("{} with {} bytes of details", code_name(status.code()), status.details().len());
            return Err(Stop::failed(sent, came, "a status without details"));
        }
    }
    Ok(())
}
