//! What was made, and how it is taken back.

use std::fmt;
use std::path::PathBuf;

use dunnage_csi_proto::csi::v1::*;

use crate::client::Call;

/// One thing to take back.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Undo {
    Folder(PathBuf),
    Volume(String),
    /// A volume whose answer never came: only its name is known.
    NamedVolume(Box<CreateVolumeRequest>),
    Snapshot(String),
    NamedSnapshot(CreateSnapshotRequest),
    Group(DeleteVolumeGroupSnapshotRequest),
    NamedGroup(CreateVolumeGroupSnapshotRequest),
    Attached(ControllerUnpublishVolumeRequest),
    Staged(NodeUnstageVolumeRequest),
    Published(NodeUnpublishVolumeRequest),
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "the folder {}", path.display()),
            Self::Volume(id) => write!(f, "the volume {id}"),
            Self::NamedVolume(request) => write!(f, "the volume named {}", request.name),
            Self::Snapshot(id) => write!(f, "the snapshot {id}"),
            Self::NamedSnapshot(request) => write!(f, "the snapshot named {}", request.name),
            Self::Group(request) => write!(f, "the group snapshot {}", request.group_snapshot_id),
            Self::NamedGroup(request) => write!(f, "the group snapshot named {}", request.name),
            Self::Attached(request) => write!(f, "the attachment of {}", request.volume_id),
            Self::Staged(request) => write!(f, "what is staged at {}", request.staging_target_path),
            Self::Published(request) => write!(f, "what is published at {}", request.target_path),
        }
    }
}

/// A request that says what it leaves to be taken back.
pub(super) trait Tracked: Call {
    /// Before it is sent: what it may do even where no answer comes.
    fn begun(&self) -> Option<Undo> {
        None
    }

    /// Where the answer with the id of what was made never comes.
    fn unanswered(&self) -> Option<Undo> {
        None
    }

    /// After it was answered: what is there now, or what is not any more.
    fn done(&self, _: &Self::Answer, _: &mut Vec<Undo>) {}

    /// Whether two answers to the same request, one after the other, tell the same.
    fn same(earlier: &Self::Answer, later: &Self::Answer) -> bool {
        earlier == later
    }
}

impl Tracked for CreateVolumeRequest {
    fn unanswered(&self) -> Option<Undo> {
        Some(Undo::NamedVolume(Box::new(self.clone())))
    }

    fn done(&self, answer: &CreateVolumeResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| Some(noted) != self.unanswered().as_ref());
        undo.extend(answer.volume.as_ref().map(|volume| Undo::Volume(volume.volume_id.clone())));
    }
}

impl Tracked for DeleteVolumeRequest {
    fn done(&self, _: &DeleteVolumeResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Volume(id) if *id == self.volume_id));
    }
}

impl Tracked for CreateSnapshotRequest {
    fn unanswered(&self) -> Option<Undo> {
        Some(Undo::NamedSnapshot(self.clone()))
    }

    fn done(&self, answer: &CreateSnapshotResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| Some(noted) != self.unanswered().as_ref());
        let made = answer.snapshot.as_ref().map(|snapshot| Undo::Snapshot(snapshot.snapshot_id.clone()));
        undo.extend(made.filter(|made| !undo.contains(made)));
    }

    fn same(earlier: &CreateSnapshotResponse, later: &CreateSnapshotResponse) -> bool {
        both(earlier.snapshot.as_ref(), later.snapshot.as_ref(), same_snapshot)
    }
}

/// Whether two answers tell of one snapshot; only whether it is ready to use may have changed.
pub(super) fn same_snapshot(earlier: &Snapshot, later: &Snapshot) -> bool {
    let known = |snapshot: &Snapshot| Snapshot { ready_to_use: true, ..snapshot.clone() };
    known(earlier) == known(later) && (later.ready_to_use || !earlier.ready_to_use)
}

/// The same of a group. A list of snapshots has no order.
pub(super) fn same_group(earlier: &VolumeGroupSnapshot, later: &VolumeGroupSnapshot) -> bool {
    let known = |group: &VolumeGroupSnapshot| {
        let mut group = VolumeGroupSnapshot { ready_to_use: true, ..group.clone() };
        group.snapshots.iter_mut().for_each(|own| own.ready_to_use = true);
        group.snapshots.sort_by(|one, other| one.snapshot_id.cmp(&other.snapshot_id));
        group
    };
    known(earlier) == known(later)
}

fn both<T>(earlier: Option<&T>, later: Option<&T>, same: impl Fn(&T, &T) -> bool) -> bool {
    earlier.zip(later).is_some_and(|(earlier, later)| same(earlier, later))
}

impl Tracked for DeleteSnapshotRequest {
    fn done(&self, _: &DeleteSnapshotResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Snapshot(id) if *id == self.snapshot_id));
    }
}

impl Tracked for CreateVolumeGroupSnapshotRequest {
    fn unanswered(&self) -> Option<Undo> {
        Some(Undo::NamedGroup(self.clone()))
    }

    fn done(&self, answer: &CreateVolumeGroupSnapshotResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| Some(noted) != self.unanswered().as_ref());
        undo.extend(answer.group_snapshot.as_ref().map(|group| Undo::Group(delete_group(group))));
    }

    fn same(earlier: &CreateVolumeGroupSnapshotResponse, later: &CreateVolumeGroupSnapshotResponse) -> bool {
        both(earlier.group_snapshot.as_ref(), later.group_snapshot.as_ref(), same_group)
    }
}

/// The request that takes a group snapshot back.
pub(super) fn delete_group(group: &VolumeGroupSnapshot) -> DeleteVolumeGroupSnapshotRequest {
    DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: group.snapshots.iter().map(|snapshot| snapshot.snapshot_id.clone()).collect(),
        ..DeleteVolumeGroupSnapshotRequest::default()
    }
}

impl Tracked for DeleteVolumeGroupSnapshotRequest {
    fn done(&self, _: &DeleteVolumeGroupSnapshotResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Group(group) if group.group_snapshot_id == self.group_snapshot_id));
    }
}

impl Tracked for ControllerPublishVolumeRequest {
    fn begun(&self) -> Option<Undo> {
        Some(Undo::Attached(ControllerUnpublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            node_id: self.node_id.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        }))
    }
}

impl Tracked for ControllerUnpublishVolumeRequest {
    fn done(&self, _: &ControllerUnpublishVolumeResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Attached(own) if own.volume_id == self.volume_id));
    }
}

impl Tracked for NodeStageVolumeRequest {
    fn begun(&self) -> Option<Undo> {
        Some(Undo::Staged(NodeUnstageVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: self.staging_target_path.clone(),
        }))
    }
}

impl Tracked for NodeUnstageVolumeRequest {
    fn done(&self, _: &NodeUnstageVolumeResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Staged(own) if own == self));
    }
}

impl Tracked for NodePublishVolumeRequest {
    fn begun(&self) -> Option<Undo> {
        Some(Undo::Published(NodeUnpublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            target_path: self.target_path.clone(),
        }))
    }
}

impl Tracked for NodeUnpublishVolumeRequest {
    fn done(&self, _: &NodeUnpublishVolumeResponse, undo: &mut Vec<Undo>) {
        undo.retain(|noted| !matches!(noted, Undo::Published(own) if own == self));
    }
}

macro_rules! leaves_nothing {
    ($($request:ident),* $(,)?) => { $(impl Tracked for $request {})* };
}

leaves_nothing! {
    GetPluginInfoRequest, GetPluginCapabilitiesRequest, ProbeRequest,
    ValidateVolumeCapabilitiesRequest, ListVolumesRequest, ControllerListVolumeHealthRequest,
    ControllerGetVolumeHealthRequest, GetCapacityRequest, ControllerGetCapabilitiesRequest,
    ListSnapshotsRequest, GetSnapshotRequest, ControllerExpandVolumeRequest, ControllerGetVolumeRequest,
    ControllerModifyVolumeRequest, GroupControllerGetCapabilitiesRequest, GetVolumeGroupSnapshotRequest,
    NodeGetVolumeStatsRequest, NodeGetVolumeHealthRequest, NodeGetStorageHealthRequest, NodeExpandVolumeRequest,
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, GetMetadataAllocatedRequest, GetMetadataDeltaRequest,
}
