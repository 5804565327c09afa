//! Requests that name groups of snapshots, and answers that describe them.

use std::collections::{BTreeMap, BTreeSet};

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{
    Error, Fingerprint, GroupSnapshot, GroupSnapshotId, InstanceId, Parameters, Result, Secrets, VolumeId,
};

use super::limits::{self, missing, short};
use super::parameters::ClassParameters;
use super::snapshot::{snapshot_to_wire, time};
use super::topology::Segment;
use crate::telemetry::{self, Field};

/// The most volumes in one group: all of them are held still together.
const MOST: usize = 64;

/// A checked CreateVolumeGroupSnapshot.
#[derive(Debug, Clone)]
pub struct CreateGroup {
    /// The name of the group.
    pub name: String,
    /// The volumes, each once, in order.
    pub sources: BTreeSet<VolumeId>,
    /// Parameters of its class, for the driver.
    pub parameters: Parameters,
    /// The digest of what makes it what it is.
    pub fingerprint: Fingerprint,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked CreateVolumeGroupSnapshotRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing, malformed or there twice;
/// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a volume of a form that we never made.
pub fn create_group(wire: csi::CreateVolumeGroupSnapshotRequest) -> Result<CreateGroup> {
    let name = limits::name("name", wire.name)?;
    let class = ClassParameters::from_wire(wire.parameters)?;
    if class.backend.is_some() {
        return Err(Error::invalid("parameter \"backend\" is not for snapshots: one lies where its volume does"));
    }
    let count = wire.source_volume_ids.len();
    if !(1..=MOST).contains(&count) {
        return Err(Error::invalid(format!("source_volume_ids has {count} volumes: name 1 to {MOST}")));
    }
    let mut sources = BTreeSet::new();
    for text in wire.source_volume_ids {
        let id = limits::handle_of("source_volume_ids", text)?.ours()?;
        if let Some(twice) = sources.replace(id) {
            return Err(Error::invalid(format!("source_volume_ids has {twice} twice: name each volume once")));
        }
    }
    let mut parts: BTreeMap<_, _> =
        class.driver.pairs().iter().map(|(key, value)| (format!("parameter {key}"), value.clone())).collect();
    parts.extend(sources.iter().map(|id| (format!("source {id}"), String::new())));
    let fingerprint = Fingerprint::of(&parts);
    Ok(CreateGroup { name, sources, parameters: class.driver, fingerprint, secrets: limits::secrets(wire.secrets)? })
}

/// The group that a request names.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its id; `None` for a text of a form that we never made.
    pub id: Option<GroupSnapshotId>,
    /// What the orchestrator takes for its members.
    pub members: BTreeSet<String>,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked GetVolumeGroupSnapshotRequest or DeleteVolumeGroupSnapshotRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn group(
    group_snapshot_id: String,
    snapshot_ids: Vec<String>,
    secrets: std::collections::HashMap<String, String>,
) -> Result<Group> {
    if group_snapshot_id.is_empty() {
        return Err(missing("group_snapshot_id"));
    }
    telemetry::record(Field::SnapshotId, &group_snapshot_id);
    short("group_snapshot_id", &group_snapshot_id)?;
    if snapshot_ids.len() > MOST {
        return Err(Error::invalid(format!("snapshot_ids has {} ids: a group has at most {MOST}", snapshot_ids.len())));
    }
    snapshot_ids.iter().try_for_each(|id| short("snapshot_ids", id))?;
    let id = group_snapshot_id.parse().ok();
    // Of what never was nobody knows the members.
    if id.is_some() && snapshot_ids.is_empty() {
        return Err(missing("snapshot_ids"));
    }
    Ok(Group { id, members: snapshot_ids.into_iter().collect(), secrets: limits::secrets(secrets)? })
}

/// A group as CSI carries it, usable from `segment` alone where there is one.
pub fn group_to_wire(
    group: &GroupSnapshot,
    instance: &InstanceId,
    segment: Option<&Segment>,
) -> csi::VolumeGroupSnapshot {
    let id =
        GroupSnapshotId { instance: instance.clone(), key: group.key.clone(), generation: group.generation.clone() };
    let snapshots = group.snapshots.iter();
    csi::VolumeGroupSnapshot {
        group_snapshot_id: id.to_string(),
        ready_to_use: group.snapshots.iter().all(|snapshot| snapshot.ready),
        creation_time: Some(time(group.created)),
        snapshots: snapshots.map(|snapshot| snapshot_to_wire(snapshot, instance, segment)).collect(),
    }
}
