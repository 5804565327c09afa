//! Requests that name snapshots, and answers that describe them.

use std::collections::BTreeMap;
use std::time::Duration;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{
    Error, Fingerprint, InstanceId, Parameters, Result, Secrets, Snapshot, SnapshotId, SnapshotKey, SourceId,
};

use super::limits::{self, VolumeHandle, missing, short};
use super::page::{Page, page};
use super::parameters::ClassParameters;
use super::topology::{Segment, TopologyRequirement};
use crate::telemetry::{self, Field};

/// A checked CreateSnapshot.
#[derive(Debug, Clone)]
pub struct CreateSnapshot {
    /// The name of the snapshot.
    pub name: String,
    /// The volume it is to be taken of.
    pub source: VolumeHandle,
    /// From where volumes that are made from it must be accessible.
    pub accessibility: Option<TopologyRequirement>,
    /// Parameters of its class, for the driver.
    pub parameters: Parameters,
    /// The digest of what makes it what it is.
    pub fingerprint: Fingerprint,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked CreateSnapshotRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn create_snapshot(wire: csi::CreateSnapshotRequest) -> Result<CreateSnapshot> {
    let name = limits::name("name", wire.name)?;
    let source = limits::handle_of("source_volume_id", wire.source_volume_id)?;
    let class = ClassParameters::from_wire(wire.parameters)?;
    if class.backend.is_some() {
        return Err(Error::invalid("parameter \"backend\" is not for snapshots: one lies where its volume does"));
    }
    let mut parts: BTreeMap<_, _> =
        class.driver.pairs().iter().map(|(key, value)| (format!("parameter {key}"), value.clone())).collect();
    parts.insert("source".to_owned(), source.to_string());
    Ok(CreateSnapshot {
        name,
        source,
        accessibility: wire.accessibility_requirements.map(TopologyRequirement::from_wire).transpose()?,
        fingerprint: Fingerprint::of(&parts),
        parameters: class.driver,
        secrets: limits::secrets(wire.secrets)?,
    })
}

/// The snapshot that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SnapshotHandle {
    /// An id of the form that we make.
    Ours(SnapshotId),
    /// Any other text: such a snapshot was never made here.
    Foreign(String),
}

impl SnapshotHandle {
    /// The id, for a call that cannot succeed without a snapshot.
    ///
    /// # Errors
    /// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a handle that is none of ours.
    pub fn ours(self) -> Result<SnapshotId> {
        match self {
            Self::Ours(id) => Ok(id),
            Self::Foreign(text) => Err(Error::not_found(format!(
                "snapshot_id {text:?} names no snapshot: it is not of the form made here"
            ))),
        }
    }
}

/// The snapshot that a request names: a required field of at most 128 bytes. From here on the call's lines in the log
/// have it.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) where it is missing or too long.
pub fn snapshot_handle(text: String) -> Result<SnapshotHandle> {
    snapshot_handle_of("snapshot_id", text)
}

/// As [`snapshot_handle`], for a snapshot that is named in another field.
pub(super) fn snapshot_handle_of(field: &str, text: String) -> Result<SnapshotHandle> {
    if text.is_empty() {
        return Err(missing(field));
    }
    telemetry::record(Field::SnapshotId, &text);
    short(field, &text)?;
    Ok(match text.parse() {
        Ok(id) => SnapshotHandle::Ours(id),
        Err(_) => SnapshotHandle::Foreign(text),
    })
}

/// A checked ListSnapshots.
#[derive(Debug, Clone)]
pub struct ListSnapshots {
    /// Which entries are wanted.
    pub page: Page<SnapshotKey>,
    /// The volume whose snapshots are wanted, where the request says one.
    pub source: Option<VolumeHandle>,
    /// The one snapshot that is wanted, where the request says one.
    pub snapshot: Option<SnapshotHandle>,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked ListSnapshotsRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is malformed.
pub fn list_snapshots(wire: csi::ListSnapshotsRequest) -> Result<ListSnapshots> {
    let said = |text: String| (!text.is_empty()).then_some(text);
    let source = said(wire.source_volume_id).map(|text| limits::handle_of("source_volume_id", text));
    Ok(ListSnapshots {
        page: page(wire.max_entries, &wire.starting_token)?,
        source: source.transpose()?,
        snapshot: said(wire.snapshot_id).map(snapshot_handle).transpose()?,
        secrets: limits::secrets(wire.secrets)?,
    })
}

/// What a new volume is to be made from, where the request says it.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or too long,
/// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a source of a form that we never made.
pub(super) fn content_source(wire: Option<csi::VolumeContentSource>) -> Result<Option<SourceId>> {
    use csi::volume_content_source::Type;
    let Some(wire) = wire else { return Ok(None) };
    match wire.r#type {
        Some(Type::Snapshot(source)) => {
            let id = snapshot_handle(source.snapshot_id).and_then(SnapshotHandle::ours)?;
            Ok(Some(SourceId::Snapshot(id)))
        }
        Some(Type::Volume(source)) => {
            let id = limits::handle_of("volume_content_source.volume.volume_id", source.volume_id)?.ours()?;
            Ok(Some(SourceId::Volume(id)))
        }
        None => Err(missing("volume_content_source.type")),
    }
}

/// A source as CSI carries it.
pub(super) fn content_source_to_wire(source: &SourceId) -> csi::VolumeContentSource {
    use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let source = match source {
        SourceId::Snapshot(id) => Type::Snapshot(SnapshotSource { snapshot_id: id.to_string() }),
        SourceId::Volume(id) => Type::Volume(VolumeSource { volume_id: id.to_string() }),
    };
    csi::VolumeContentSource { r#type: Some(source) }
}

/// A time since 1970 as CSI carries it.
pub(super) fn time(since_1970: Duration) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
        nanos: since_1970.subsec_nanos().cast_signed(),
    }
}

/// A snapshot as CSI carries it, usable from `segment` alone where there is one: the same at every call that names it.
pub fn snapshot_to_wire(snapshot: &Snapshot, instance: &InstanceId, segment: Option<&Segment>) -> csi::Snapshot {
    let id =
        SnapshotId { instance: instance.clone(), key: snapshot.key.clone(), generation: snapshot.generation.clone() };
    csi::Snapshot {
        size_bytes: snapshot.size.to_wire(),
        snapshot_id: id.to_string(),
        source_volume_id: snapshot.source.to_string(),
        creation_time: Some(time(snapshot.created)),
        ready_to_use: snapshot.ready,
        group_snapshot_id: snapshot.group.as_ref().map(ToString::to_string).unwrap_or_default(),
        accessible_topology: segment.map(Segment::to_wire).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_another_volume_or_class_is_another_request() {
        let request = |source: &str, class: &str| {
            create_snapshot(csi::CreateSnapshotRequest {
                name: "a".into(),
                source_volume_id: source.into(),
                parameters: [("class".to_owned(), class.to_owned())].into(),
                ..Default::default()
            })
            .unwrap()
            .fingerprint
        };
        assert_eq!(request("v", "x"), request("v", "x"));
        assert_ne!(request("v", "x"), request("w", "x"));
        assert_ne!(request("v", "x"), request("v", "y"));
    }

    #[test]
    fn a_source_without_a_type_or_an_id_is_missing_a_field() {
        use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
        for r#type in
            [None, Some(Type::Snapshot(SnapshotSource::default())), Some(Type::Volume(VolumeSource::default()))]
        {
            let error = content_source(Some(csi::VolumeContentSource { r#type })).unwrap_err();
            assert!(error.to_string().contains("missing"), "{error}");
        }
    }
}
