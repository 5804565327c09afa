//! What was written is there again.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;

use crate::conformance::Kind;
use crate::conformance::content;
use crate::conformance::failure::Checked;
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const MOUNT: Need = Need::Uses(Kind::Mount);
const BLOCK: Need = Need::Uses(Kind::Block);

area! {
    "content/mount/next-publish", "NodePublishVolume", [CREATES, Need::Mounts, MOUNT]
        => |kit| next_publish(kit, Kind::Mount);
    "content/block/next-publish", "NodePublishVolume", [CREATES, Need::Mounts, BLOCK]
        => |kit| next_publish(kit, Kind::Block);
    "content/mount/own", "CreateVolume", [CREATES, Need::Mounts, MOUNT] => |kit| own(kit, Kind::Mount);
    "content/block/own", "CreateVolume", [CREATES, Need::Mounts, BLOCK] => |kit| own(kit, Kind::Block);
    "content/mount/name-again", "DeleteVolume", [CREATES, Need::Mounts, MOUNT] => |kit| name_again(kit, Kind::Mount);
    "content/block/name-again", "DeleteVolume", [CREATES, Need::Mounts, BLOCK] => |kit| name_again(kit, Kind::Block);
}

/// After an unpublish alone, and after an unstage and a detachment.
async fn next_publish(kit: &Kit, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("content", kind)).await?;
    let used = kit.bring(&volume, kind).await?;
    let target = kit.publish(&used, "first").await?;
    content::write(&target, kind, 10).await?;
    kit.unpublish(&used, "first").await?;
    let target = kit.publish(&used, "second").await?;
    content::compare(&target, kind, 10, "what was written through an earlier publish").await?;
    kit.unpublish(&used, "second").await?;
    kit.take(&used).await?;
    kit.holds(&volume, kind, 10, "what was written before the volume was taken from the node").await
}

/// Two volumes have nothing in common.
async fn own(kit: &Kit, kind: Kind) -> Checked {
    let one = kit.create(kit.request_for("one", kind)).await?;
    let two = kit.create(kit.request_for("two", kind)).await?;
    kit.fill(&one, kind, 11).await?;
    kit.fill(&two, kind, 12).await?;
    kit.holds(&one, kind, 11, "what was written to this volume, and not to another").await
}

/// A new volume of an old name is a new volume.
async fn name_again(kit: &Kit, kind: Kind) -> Checked {
    let request: CreateVolumeRequest = kit.request_for("name-again", kind);
    let first = kit.create(request.clone()).await?;
    kit.fill(&first, kind, 13).await?;
    kit.delete_volume(first.volume_id).await?;
    let second = kit.create(request).await?;
    let used = kit.bring(&second, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    content::is_new(&target, kind).await
}
