//! DeleteVolume.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use futures_util::future::join_all;
use tonic::Code;

use super::create_volume::PATIENCE;
use super::lists::all_volumes;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);

area! {
    "delete-volume/again", "DeleteVolume", [CREATES] => |kit| again(kit);
    "delete-volume/gone", "DeleteVolume", [CREATES] => |kit| gone(kit);
    "delete-volume/unknown", "DeleteVolume", [CREATES] => |kit| unknown(kit);
    "delete-volume/at-once", "Concurrency", [CREATES] => |kit| at_once(kit);
    "delete-volume/client-gone", "Timeouts", [CREATES] => |kit| client_gone(kit);
    "delete-volume/name-again", "CreateVolume", [CREATES] => |kit| name_again(kit);
}

fn delete(volume: &Volume) -> DeleteVolumeRequest {
    DeleteVolumeRequest { volume_id: volume.volume_id.clone(), ..Default::default() }
}

/// "This operation MUST be idempotent."
async fn again(kit: &Kit) -> Checked {
    let volume = kit.volume("again").await?;
    kit.ok(delete(&volume)).await?;
    kit.ok(delete(&volume)).await.map(drop)
}

/// What is deleted is not there any more, by every RPC that could tell.
async fn gone(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let plugin = kit.plugin();
    let request = ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id.clone(),
        volume_capabilities: vec![kit.capability(kit.kind())],
        ..Default::default()
    };
    kit.refused(request, &[Code::NotFound], "the volume was deleted").await?;
    if plugin.offers().controller(ControllerRpc::ListVolumes) {
        let listed = all_volumes(kit, 0).await?;
        if listed.iter().any(|own| own.volume_id == volume.volume_id) {
            let came = format!("{} among {} volumes", volume.volume_id, listed.len());
            return Err(Stop::failed("ListVolumes", came, "no volume that was deleted"));
        }
    }
    Ok(())
}

/// "If a volume corresponding to the specified `volume_id` does not exist … the Plugin MUST reply `0 OK`."
async fn unknown(kit: &Kit) -> Checked {
    let long = "x".repeat(128);
    for id in ["conformance-no-such-volume", "../../conformance", "a/b", "é", "no such volume", &long] {
        kit.ok(DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() }).await?;
    }
    Ok(())
}

async fn at_once(kit: &Kit) -> Checked {
    let volume = kit.volume("at-once").await?;
    let all = join_all((0..4).map(|_| kit.ok_or_refused(delete(&volume), &[Code::Aborted], "a call is pending")));
    all.await.into_iter().collect::<Checked<Vec<_>>>()?;
    kit.settled(delete(&volume)).await.map(drop)
}

async fn client_gone(kit: &Kit) -> Checked {
    for after in PATIENCE {
        let volume = kit.volume("client-gone").await?;
        kit.abandon(delete(&volume), after).await;
        kit.settled(delete(&volume)).await?;
    }
    Ok(())
}

/// A name can be used again once its volume is gone, and the late delete of the first does not touch the second.
async fn name_again(kit: &Kit) -> Checked {
    let request = kit.request("name-again");
    let first = kit.create(request.clone()).await?;
    kit.ok(delete(&first)).await?;
    let second = kit.create(request.clone()).await?;
    if first.volume_id == second.volume_id {
        // The specification lets an id be made of the name.
        return Ok(());
    }
    kit.ok(delete(&first)).await?;
    let third = kit.create(request.clone()).await?;
    if second == third {
        return Ok(());
    }
    let wants = "the volume of this name as it was: another one was deleted";
    Err(Stop::failed(format_args!("CreateVolume {request:?}"), format_args!("{third:?}, and before {second:?}"), wants))
}
