//! ControllerExpandVolume.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use futures_util::future::join_all;
use tonic::Code;

use super::create_volume::{PATIENCE, range};
use crate::conformance::failure::Checked;
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const EXPANDS: Need = Need::Controller(ControllerRpc::ExpandVolume);

area! {
    "expand/answer", "ControllerExpandVolume", [CREATES, EXPANDS] => |kit| answer(kit);
    "expand/again", "ControllerExpandVolume", [CREATES, EXPANDS] => |kit| again(kit);
    "expand/smaller", "ControllerExpandVolume" SHOULD, [CREATES, EXPANDS] => |kit| smaller(kit);
    "expand/create-again", "CreateVolume", [CREATES, EXPANDS] => |kit| create_again(kit);
    "expand/not-found", "ControllerExpandVolume Errors", [CREATES, EXPANDS] => |kit| not_found(kit);
    "expand/limit-below-required", "ControllerExpandVolume Errors", [CREATES, EXPANDS] => |kit| limit_below(kit);
    "expand/at-once", "Concurrency", [CREATES, EXPANDS] => |kit| at_once(kit);
    "expand/client-gone", "Timeouts", [CREATES, EXPANDS] => |kit| client_gone(kit);
}

pub(super) fn request(kit: &Kit, volume: &Volume, bytes: i64) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: volume.volume_id.clone(),
        capacity_range: range(bytes, 0),
        volume_capability: Some(kit.capability(kit.kind())),
        ..Default::default()
    }
}

async fn answer(kit: &Kit) -> Checked {
    let volume = kit.volume("expand").await?;
    let larger = kit.params().larger();
    let grown = kit.ok(request(kit, &volume, larger)).await?;
    grown.must(grown.capacity_bytes >= larger, "the capacity after expansion, of at least required_bytes")
}

/// "already larger than or equal to the target capacity of the expansion request, the plugin SHOULD reply 0 OK", and the
/// operation MUST be idempotent.
async fn again(kit: &Kit) -> Checked {
    let volume = kit.volume("expand").await?;
    let request = request(kit, &volume, kit.params().larger());
    let first = kit.ok(request.clone()).await?;
    let second = kit.ok(request).await?;
    second.must(second.capacity_bytes == first.capacity_bytes, "the same capacity as after the first call")
}

async fn smaller(kit: &Kit) -> Checked {
    let volume = kit.volume("expand").await?;
    let larger = kit.ok(request(kit, &volume, kit.params().larger())).await?;
    let smaller = kit.ok(request(kit, &volume, kit.params().size())).await?;
    smaller.must(smaller.capacity_bytes == larger.capacity_bytes, "OK, and the capacity that the volume has")
}

/// A volume that has grown is still the one of its name: larger than what was required.
async fn create_again(kit: &Kit) -> Checked {
    let create = kit.request("expand");
    let volume = kit.create(create.clone()).await?;
    kit.ok(request(kit, &volume, kit.params().larger())).await?;
    let again = kit.ok(create).await?;
    let id = again.volume.as_ref().map(|own| own.volume_id.as_str());
    again.must(id == Some(&volume.volume_id), "the volume of this name, which is compatible: it is larger")
}

async fn not_found(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    let request = request(kit, &volume, kit.params().larger());
    kit.refused(request, &[Code::NotFound], "there is no such volume").await
}

async fn limit_below(kit: &Kit) -> Checked {
    let volume = kit.volume("expand").await?;
    let larger = kit.params().larger();
    let request = ControllerExpandVolumeRequest {
        capacity_range: range(larger, kit.params().size()),
        ..request(kit, &volume, larger)
    };
    kit.refused(request, &[Code::OutOfRange, Code::InvalidArgument], "the limit is below what is required").await
}

async fn at_once(kit: &Kit) -> Checked {
    let volume = kit.volume("expand").await?;
    let request = request(kit, &volume, kit.params().larger());
    let all = join_all((0..4).map(|_| kit.ok_or_refused(request.clone(), &[Code::Aborted], "a call is pending")));
    all.await.into_iter().collect::<Checked<Vec<_>>>()?;
    kit.settled(request).await.map(drop)
}

async fn client_gone(kit: &Kit) -> Checked {
    for after in PATIENCE {
        let volume = kit.volume("expand").await?;
        let request = request(kit, &volume, kit.params().larger());
        kit.abandon(request.clone(), after).await;
        let grown = kit.settled(request).await?;
        grown.must(grown.capacity_bytes >= kit.params().larger(), "the capacity after expansion")?;
    }
    Ok(())
}
