//! Volumes on this node: stage, publish, stats, growth.

use std::fs;
use std::path::Path;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_usage::Unit;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::create_volume::range;
use crate::client::blocking;
use crate::conformance::content;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::using::Used;
use crate::conformance::{Kind, mounts};

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const MOUNT: Need = Need::Uses(Kind::Mount);
const BLOCK: Need = Need::Uses(Kind::Block);

area! {
    "node/mount/life", "NodePublishVolume", [CREATES, Need::Mounts, MOUNT] => |kit| life(kit, Kind::Mount);
    "node/block/life", "NodePublishVolume", [CREATES, Need::Mounts, BLOCK] => |kit| life(kit, Kind::Block);
    "node/mount/readonly", "NodePublishVolume", [CREATES, Need::Mounts, MOUNT] => |kit| readonly(kit, Kind::Mount);
    "node/block/readonly", "NodePublishVolume", [CREATES, Need::Mounts, BLOCK] => |kit| readonly(kit, Kind::Block);
    "node/mount/flags", "CreateVolume", [CREATES, Need::Mounts, MOUNT, Need::MountFlags] => |kit| flags(kit);
    "node/mount/long-paths", "NodePublishVolume", [CREATES, Need::Mounts, MOUNT] => |kit| long_paths(kit);
    "node/mount/stats", "NodeGetVolumeStats",
        [CREATES, Need::Mounts, MOUNT, Need::Node(NodeRpc::GetVolumeStats)] => |kit| stats(kit, Kind::Mount);
    "node/block/stats", "NodeGetVolumeStats",
        [CREATES, Need::Mounts, BLOCK, Need::Node(NodeRpc::GetVolumeStats)] => |kit| stats(kit, Kind::Block);
    "node/mount/expand", "NodeExpandVolume", [CREATES, Need::Mounts, MOUNT, EXPANDS] => |kit| expand(kit, Kind::Mount);
    "node/block/expand", "NodeExpandVolume", [CREATES, Need::Mounts, BLOCK, EXPANDS] => |kit| expand(kit, Kind::Block);
    "node/mount/expand-online", "GetPluginCapabilities",
        [CREATES, Need::Mounts, MOUNT, EXPANDS, Need::Expansion(Expansion::Online)] => |kit| online(kit);
    "node/mount/single-node-writer", "NodePublishVolume",
        [CREATES, Need::Mounts, MOUNT, Need::Node(NodeRpc::SingleNodeMultiWriter)] => |kit| several_writers(kit);
}

const EXPANDS: Need = Need::Controller(ControllerRpc::ExpandVolume);

/// From the volume to a workload and back; the target is there only in between.
async fn life(kit: &Kit, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("life", kind)).await?;
    let used = kit.bring(&volume, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    content::is_new(&target, kind).await?;
    content::write(&target, kind, 1).await?;
    content::compare(&target, kind, 1, "what has been written through the target path").await?;
    kit.unpublish(&used, "pod").await?;
    gone(&target).await?;
    kit.take(&used).await?;
    kit.delete_volume(volume.volume_id).await
}

/// "The SP MUST delete the file or directory it created at this path."
pub(super) async fn gone(target: &Path) -> Checked {
    let found = blocking("cannot look at", target, |target| Ok(fs::symlink_metadata(target).is_ok())).await?;
    if !found {
        return Ok(());
    }
    let sent = format!("NodeUnpublishVolume of {}, and a look at it", target.display());
    Err(Stop::failed(sent, "it is still there", "the SP MUST delete the file or directory it created at this path"))
}

async fn readonly(kit: &Kit, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("readonly", kind)).await?;
    kit.fill(&volume, kind, 2).await?;
    let used = kit.bring(&volume, kind).await?;
    let request = NodePublishVolumeRequest { readonly: true, ..used.publish_request(kit, "pod").await? };
    let published = kit.ok(request).await?;
    let target = used.target("pod");
    used.is_at(&target, &published).await?;
    content::is_readonly(&target, kind).await?;
    content::compare(&target, kind, 2, "what was written before, in a volume that is published readonly").await
}

/// "SP MUST ensure the CO can use the published volume as described": with its mount flags.
async fn flags(kit: &Kit) -> Checked {
    let volume = kit.create(kit.request_for("flags", Kind::Mount)).await?;
    let used = kit.bring(&volume, Kind::Mount).await?;
    let target = kit.publish(&used, "pod").await?;
    let found = blocking("cannot list the mounts at", &target, mounts::beneath).await?;
    let options = found.into_iter().find(|mount| mount.point == target).map(|mount| mount.options).unwrap_or_default();
    for flag in &kit.params().mount_flags {
        if !options.contains(flag) {
            let sent = format!("NodePublishVolume with mount_flags {:?}", kit.params().mount_flags);
            return Err(Stop::failed(sent, options.join(","), format_args!("a mount with {flag}, or a refusal")));
        }
    }
    Ok(())
}

/// "SP MUST accept a max path length of at least 128 bytes."
async fn long_paths(kit: &Kit) -> Checked {
    let volume = kit.create(kit.request_for("long", Kind::Mount)).await?;
    let used = kit.bring(&volume, Kind::Mount).await?;
    let pod = "p".repeat(128_usize.saturating_sub(used.target("").as_os_str().len()).max(1));
    kit.publish(&used, &pod).await?;
    kit.unpublish(&used, &pod).await
}

fn stats_request(used: &Used, path: &Path) -> NodeGetVolumeStatsRequest {
    NodeGetVolumeStatsRequest {
        volume_id: used.volume.volume_id.clone(),
        volume_path: path.display().to_string(),
        staging_target_path: used.staging(),
    }
}

async fn stats(kit: &Kit, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("stats", kind)).await?;
    let used = kit.bring(&volume, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    let stats = kit.ok(stats_request(&used, &target)).await?;
    for usage in &stats.usage {
        let known = matches!(usage.unit(), Unit::Bytes | Unit::Inodes);
        stats.must(known, "a unit of each usage, which is REQUIRED")?;
        let negative = usage.available < 0 || usage.total < 0 || usage.used < 0;
        stats.must(!negative, "no negative available, total or used")?;
        // A file system may make inodes as they are wanted, and then has no number of them.
        stats.must(usage.unit() != Unit::Bytes || usage.total > 0, "the total of bytes, which is REQUIRED")?;
    }
    let why = "the volume does not exist on this volume_path";
    kit.refused(stats_request(&used, &kit.folder().join("no-such-path")), &[Code::NotFound], why).await?;
    let mut request = stats_request(&used, &target);
    "conformance-no-such-volume".clone_into(&mut request.volume_id);
    kit.refused(request, &[Code::NotFound], why).await
}

fn expand_request(kit: &Kit, used: &Used, path: &Path) -> NodeExpandVolumeRequest {
    NodeExpandVolumeRequest {
        volume_id: used.volume.volume_id.clone(),
        volume_path: path.display().to_string(),
        capacity_range: range(kit.params().larger(), 0),
        staging_target_path: used.staging(),
        volume_capability: Some(kit.capability(used.kind)),
        ..Default::default()
    }
}

/// A volume that has grown is larger for the workload that has it, and holds what it held.
async fn expand(kit: &Kit, kind: Kind) -> Checked {
    let plugin = kit.plugin();
    let larger = kit.params().larger();
    let volume = kit.create(kit.request_for("expand", kind)).await?;
    kit.fill(&volume, kind, 3).await?;
    let mut request = super::expand::request(kit, &volume, larger);
    request.volume_capability = Some(kit.capability(kind));
    // Offline, the volume grows before it is brought: what all plugins can.
    let grown = kit.ok(request).await?;
    let used = kit.bring(&volume, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    if grown.node_expansion_required {
        let wants = "EXPAND_VOLUME of the node, with node_expansion_required";
        grown.must(plugin.offers().node(NodeRpc::ExpandVolume), wants)?;
        let first = kit.ok(expand_request(kit, &used, &target)).await?;
        let second = kit.ok(expand_request(kit, &used, &target)).await?;
        second.same_as(&first.answer, "the same answer again: the operation MUST be idempotent")?;
    }
    content::compare(&target, kind, 3, "what the volume held before it was expanded").await?;
    if kind == Kind::Block {
        let size = blocking("cannot find the size of", &target, |target| {
            std::io::Seek::seek(&mut fs::File::open(target)?, std::io::SeekFrom::End(0))
        });
        let size = size.await?;
        let wants = format!("a device of at least {larger} bytes");
        grown.must(i64::try_from(size).is_ok_and(|size| size >= larger), wants)?;
    }
    Ok(())
}

/// "When a plugin supports ONLINE volume expansion and also has the EXPAND_VOLUME controller capability then the plugin
/// MUST support expansion of volumes currently published and available on a node."
async fn online(kit: &Kit) -> Checked {
    let kind = Kind::Mount;
    let volume = kit.create(kit.request_for("online", kind)).await?;
    let used = kit.bring(&volume, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    content::write(&target, kind, 6).await?;
    let mut request = super::expand::request(kit, &volume, kit.params().larger());
    request.volume_capability = Some(kit.capability(kind));
    let grown = kit.ok(request).await?;
    if grown.node_expansion_required {
        let why = "the file system may not support expansion of published volumes";
        kit.ok_or_refused(expand_request(kit, &used, &target), &[Code::FailedPrecondition], why).await?;
    }
    content::compare(&target, kind, 6, "what a published volume held before it was expanded").await
}

/// "Plugins MUST accept and allow use of the `SINGLE_NODE_WRITER` access mode, when either SINGLE_NODE_SINGLE_WRITER
/// and/or SINGLE_NODE_MULTI_WRITER are supported".
async fn several_writers(kit: &Kit) -> Checked {
    let old = kit.create(kit.request_for("old-mode", Kind::Mount)).await?;
    let used = kit.bring(&old, Kind::Mount).await?;
    kit.publish(&used, "pod").await?;
    let mode = Mode::SingleNodeMultiWriter;
    let mut request = kit.request_for("new-mode", Kind::Mount);
    request.volume_capabilities = vec![kit.capability_in(Kind::Mount, mode)];
    let why = "the plugin may support SINGLE_NODE_SINGLE_WRITER alone";
    let Some(made) = kit.ok_or_refused(request, &[Code::InvalidArgument], why).await? else { return Ok(()) };
    let volume = crate::conformance::using::volume_of(&made)?;
    let used = kit.bring_in(&volume, Kind::Mount, mode).await?;
    let first = kit.publish(&used, "first").await?;
    let second = kit.publish(&used, "second").await?;
    content::write(&first, Kind::Mount, 4).await?;
    content::compare(&second, Kind::Mount, 4, "at each target what was written through the other").await
}
