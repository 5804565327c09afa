//! Volumes that are made from snapshots and from volumes: their answers, and their bytes.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::volume_content_source::{self, SnapshotSource};
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::create_volume::{PATIENCE, from_volume, range};
use crate::conformance::Kind;
use crate::conformance::content;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::using::volume_of;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const SNAPSHOTS: Need = Need::Controller(ControllerRpc::CreateDeleteSnapshot);
const CLONES: Need = Need::Controller(ControllerRpc::CloneVolume);
const MOUNT: Need = Need::Uses(Kind::Mount);
const BLOCK: Need = Need::Uses(Kind::Block);

area! {
    "restore/again", "CreateVolume", [CREATES, SNAPSHOTS] => |kit| again(kit, Origin::Snapshot);
    "clone/again", "CreateVolume", [CREATES, CLONES] => |kit| again(kit, Origin::Volume);
    "restore/client-gone", "Timeouts", [CREATES, SNAPSHOTS] => |kit| client_gone(kit, Origin::Snapshot);
    "clone/client-gone", "Timeouts", [CREATES, CLONES] => |kit| client_gone(kit, Origin::Volume);
    "restore/source-not-found", "CreateVolume Errors", [CREATES, SNAPSHOTS] => |kit| snapshot_not_found(kit);
    "clone/source-not-found", "CreateVolume Errors", [CREATES, CLONES] => |kit| volume_not_found(kit);
    "restore/smaller", "CreateVolume Errors", [CREATES, SNAPSHOTS] => |kit| smaller(kit, Origin::Snapshot);
    "clone/smaller", "CreateVolume Errors" SHOULD, [CREATES, CLONES] => |kit| smaller(kit, Origin::Volume);
    "restore/mount/content", "CreateVolume", [CREATES, SNAPSHOTS, Need::Mounts, MOUNT]
        => |kit| holds(kit, Origin::Snapshot, Kind::Mount);
    "restore/block/content", "CreateVolume", [CREATES, SNAPSHOTS, Need::Mounts, BLOCK]
        => |kit| holds(kit, Origin::Snapshot, Kind::Block);
    "clone/mount/content", "CreateVolume", [CREATES, CLONES, Need::Mounts, MOUNT]
        => |kit| holds(kit, Origin::Volume, Kind::Mount);
    "clone/block/content", "CreateVolume", [CREATES, CLONES, Need::Mounts, BLOCK]
        => |kit| holds(kit, Origin::Volume, Kind::Block);
    "restore/mount/larger", "CreateVolume", [CREATES, SNAPSHOTS, Need::Mounts, MOUNT]
        => |kit| larger(kit, Origin::Snapshot, Kind::Mount);
    "restore/block/larger", "CreateVolume", [CREATES, SNAPSHOTS, Need::Mounts, BLOCK]
        => |kit| larger(kit, Origin::Snapshot, Kind::Block);
    "clone/mount/larger", "CreateVolume", [CREATES, CLONES, Need::Mounts, MOUNT]
        => |kit| larger(kit, Origin::Volume, Kind::Mount);
    "restore/mount/beside", "CreateVolume", [CREATES, SNAPSHOTS, Need::Mounts, MOUNT]
        => |kit| beside(kit, Origin::Snapshot);
    "clone/mount/beside", "CreateVolume", [CREATES, CLONES, Need::Mounts, MOUNT] => |kit| beside(kit, Origin::Volume);
    "snapshot/source-deleted", "DeleteVolume", [CREATES, SNAPSHOTS, Need::Content] => |kit| source_deleted(kit);
    "snapshot/point-in-time", "CreateSnapshot", [CREATES, SNAPSHOTS, Need::Content] => |kit| point_in_time(kit);
}

#[derive(Clone, Copy)]
enum Origin {
    Snapshot,
    Volume,
}

pub(super) fn from_snapshot(snapshot: &Snapshot) -> Option<VolumeContentSource> {
    let source = SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Snapshot(source)) })
}

async fn source(kit: &Kit, from: Origin, volume: &Volume) -> Checked<Option<VolumeContentSource>> {
    match from {
        Origin::Volume => Ok(from_volume(volume)),
        Origin::Snapshot => Ok(from_snapshot(&kit.snapshot(volume, "source").await?)),
    }
}

/// A request for a copy of the same size.
async fn copy(kit: &Kit, from: Origin, volume: &Volume, kind: Kind) -> Checked<CreateVolumeRequest> {
    let volume_content_source = source(kit, from, volume).await?;
    let size = volume.capacity_bytes.max(kit.params().size());
    Ok(CreateVolumeRequest { volume_content_source, capacity_range: range(size, 0), ..kit.request_for("copy", kind) })
}

async fn again(kit: &Kit, from: Origin) -> Checked {
    let volume = kit.volume("source").await?;
    let request = copy(kit, from, &volume, kit.kind()).await?;
    let first = kit.ok(request.clone()).await?;
    let made = volume_of(&first)?;
    first.must(made.content_source == request.volume_content_source, "the content_source that was asked for")?;
    first.must(made.volume_id != volume.volume_id, "another volume than the source")?;
    let second = kit.ok(request.clone()).await?;
    second.same_as(&first.answer, "the same answer as to the first call, field by field: the call is idempotent")?;
    let empty = CreateVolumeRequest { volume_content_source: None, ..request };
    kit.refused(empty, &[Code::AlreadyExists], "a volume of this name exists, with a volume_content_source").await
}

async fn client_gone(kit: &Kit, from: Origin) -> Checked {
    let volume = kit.volume("source").await?;
    for after in PATIENCE {
        let request = copy(kit, from, &volume, kit.kind()).await?;
        kit.abandon(request.clone(), after).await;
        let first = kit.settled(request.clone()).await?;
        kit.settled(request).await?.same_as(&first.answer, "the same answer to each repetition of the call")?;
    }
    Ok(())
}

async fn snapshot_not_found(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let snapshot = kit.snapshot(&volume, "gone").await?;
    kit.ok(DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() }).await?;
    let request = CreateVolumeRequest { volume_content_source: from_snapshot(&snapshot), ..kit.request("copy") };
    kit.refused(request, &[Code::NotFound], "the source snapshot does not exist").await
}

async fn volume_not_found(kit: &Kit) -> Checked {
    let gone = kit.deleted_volume().await?;
    let request = CreateVolumeRequest { volume_content_source: from_volume(&gone), ..kit.request("copy") };
    kit.refused(request, &[Code::NotFound], "the source volume does not exist").await
}

/// "The size of the volume MUST NOT be less than the size of the source snapshot."
async fn smaller(kit: &Kit, from: Origin) -> Checked {
    let volume = kit.volume("source").await?;
    if volume.capacity_bytes < 2 {
        return Err(Stop::Skipped("the capacity of volumes is unknown to the plugin (capacity_bytes 0)".to_owned()));
    }
    let (source, size) = match from {
        Origin::Volume => (from_volume(&volume), volume.capacity_bytes),
        Origin::Snapshot => {
            let snapshot = kit.snapshot(&volume, "source").await?;
            (from_snapshot(&snapshot), snapshot.size_bytes)
        }
    };
    if size < 2 {
        return Err(Stop::Skipped("the size of snapshots is unknown to the plugin (size_bytes 0)".to_owned()));
    }
    let mut request = CreateVolumeRequest { volume_content_source: source, ..kit.request("copy") };
    request.capacity_range = range(0, size - 1);
    kit.refused(request, &[Code::OutOfRange], "the volume would be smaller than its source").await
}

/// The copy holds what its source held, and neither changes with the other.
async fn holds(kit: &Kit, from: Origin, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("source", kind)).await?;
    kit.fill(&volume, kind, 20).await?;
    let request = copy(kit, from, &volume, kind).await?;
    let made = kit.create(request).await?;
    kit.holds(&made, kind, 20, "in the new volume, what its source held").await?;
    kit.fill(&volume, kind, 21).await?;
    kit.holds(&made, kind, 20, "a new volume that does not change with its source").await?;
    kit.fill(&made, kind, 22).await?;
    kit.holds(&volume, kind, 21, "a source that does not change with the volume that was made from it").await
}

/// Either OUT_OF_RANGE, or "a volume that … has both the requested (larger) size and contains data from" its source.
async fn larger(kit: &Kit, from: Origin, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("source", kind)).await?;
    kit.fill(&volume, kind, 23).await?;
    let mut request = copy(kit, from, &volume, kind).await?;
    let larger = kit.params().larger();
    request.capacity_range = range(larger, 0);
    let why = "the plugin may not make volumes that are larger than their source";
    let Some(made) = kit.ok_or_refused(request, &[Code::OutOfRange], why).await? else { return Ok(()) };
    let copy = volume_of(&made)?;
    let unknown = copy.capacity_bytes == 0;
    made.must(unknown || copy.capacity_bytes >= larger, "a volume of the requested (larger) size")?;
    let used = kit.bring(&copy, kind).await?;
    let target = kit.publish(&used, "pod").await?;
    content::compare(&target, kind, 23, "in the larger volume, what its source held").await?;
    let size = size(&target, kind, &volume, kit).await?;
    let wants = format!("{larger} bytes when presented to a workload (a file system of more than its source has)");
    made.must(size.is_none_or(|size| size >= larger), wants)
}

/// How large the workload sees a volume, where that can be known: a device by its size; a file system has an overhead
/// of its own, so that it is held against the source's size, and is only known where that is limited.
async fn size(target: &std::path::Path, kind: Kind, source: &Volume, kit: &Kit) -> Checked<Option<i64>> {
    let seen = crate::client::blocking("cannot find the size of", target, move |target| match kind {
        Kind::Block => std::io::Seek::seek(&mut std::fs::File::open(target)?, std::io::SeekFrom::End(0)),
        Kind::Mount => {
            let seen = rustix::fs::statvfs(target)?;
            Ok(seen.f_blocks.saturating_mul(seen.f_frsize))
        }
    });
    let seen = i64::try_from(seen.await?).unwrap_or(i64::MAX);
    Ok(match kind {
        Kind::Block => Some(seen),
        Kind::Mount if seen > source.capacity_bytes => Some(seen.max(kit.params().larger())),
        Kind::Mount => Some(seen),
    })
}

/// Source and copy at one time on one node: file systems that have one UUID must not be in each other's way.
async fn beside(kit: &Kit, from: Origin) -> Checked {
    let kind = Kind::Mount;
    let volume = kit.create(kit.request_for("source", kind)).await?;
    kit.fill(&volume, kind, 24).await?;
    let made = kit.create(copy(kit, from, &volume, kind).await?).await?;
    let (one, two) = (kit.bring(&volume, kind).await?, kit.bring(&made, kind).await?);
    let (first, second) = (kit.publish(&one, "pod").await?, kit.publish(&two, "pod").await?);
    content::compare(&first, kind, 24, "in the source, what was written").await?;
    content::compare(&second, kind, 24, "in the copy beside it, the same").await
}

/// "these snapshots MUST still be fully operational and acceptable as sources for new volumes", or the volume "MUST NOT be
/// altered in any way by the request and the operation must return the `FAILED_PRECONDITION` error code".
async fn source_deleted(kit: &Kit) -> Checked {
    let kind = kit.kind();
    let volume = kit.create(kit.request_for("source", kind)).await?;
    kit.fill(&volume, kind, 25).await?;
    let snapshot = kit.snapshot(&volume, "orphan").await?;
    let request = DeleteVolumeRequest { volume_id: volume.volume_id.clone(), ..Default::default() };
    let why = "the plugin does not treat snapshots as independent of their volumes";
    if kit.ok_or_refused(request, &[Code::FailedPrecondition], why).await?.is_none() {
        return kit.holds(&volume, kind, 25, "a volume that a refused delete has not altered").await;
    }
    if kit.plugin().offers().controller(ControllerRpc::ListSnapshots) {
        let listed = super::snapshots::all_snapshots(kit, "", 0).await?;
        if !listed.iter().any(|own| own.snapshot_id == snapshot.snapshot_id) {
            let wants = "the snapshots of a volume that was deleted";
            return Err(Stop::failed("ListSnapshots, after DeleteVolume", format_args!("{listed:?}"), wants));
        }
    }
    let size = volume.capacity_bytes.max(kit.params().size());
    let request = CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot),
        capacity_range: range(size, 0),
        ..kit.request_for("restored", kind)
    };
    let made = kit.create(request).await?;
    kit.holds(&made, kind, 25, "in a volume from the snapshot, what the deleted volume held").await
}

/// A snapshot holds what was there when it was taken, whatever is written later.
async fn point_in_time(kit: &Kit) -> Checked {
    let kind = kit.kind();
    let volume = kit.create(kit.request_for("source", kind)).await?;
    kit.fill(&volume, kind, 26).await?;
    let snapshot = kit.snapshot(&volume, "then").await?;
    kit.fill(&volume, kind, 27).await?;
    let request = CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot),
        capacity_range: range(volume.capacity_bytes.max(kit.params().size()), 0),
        ..kit.request_for("restored", kind)
    };
    let made = kit.create(request).await?;
    kit.holds(&made, kind, 26, "what the volume held when the snapshot was taken").await
}
