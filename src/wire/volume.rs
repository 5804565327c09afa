//! Answers that describe a volume.

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{HealthFinding, HealthStatus, InstanceId, Reach, Volume, VolumeId};

use super::snapshot::content_source_to_wire;
use super::topology::Segment;
use crate::mount::{Unit, Usage};

/// A volume as CSI carries it: the same at every call that names it.
pub fn volume_to_wire(volume: &Volume, instance: &InstanceId, reach: Reach, segment: &Segment) -> csi::Volume {
    let id = VolumeId { instance: instance.clone(), key: volume.key.clone(), generation: volume.generation.clone() };
    csi::Volume {
        capacity_bytes: volume.capacity.to_wire(),
        volume_id: id.to_string(),
        volume_context: volume.context.clone().into_iter().collect(),
        content_source: volume.source.as_ref().map(content_source_to_wire),
        accessible_topology: match reach {
            Reach::Node => vec![segment.to_wire()],
            Reach::Everywhere => Vec::new(),
        },
    }
}

/// A number as CSI carries it.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A usage as CSI carries it.
pub fn usage_to_wire(usage: &Usage) -> csi::VolumeUsage {
    csi::VolumeUsage {
        available: number(usage.available.unwrap_or_default()),
        total: number(usage.total),
        used: number(usage.used.unwrap_or_default()),
        unit: match usage.unit {
            Unit::Bytes => csi::volume_usage::Unit::Bytes.into(),
            Unit::Inodes => csi::volume_usage::Unit::Inodes.into(),
        },
    }
}

/// The health of a volume as CSI carries it: no entry where nothing adverse is known.
pub fn volume_health_to_wire(volume_id: String, findings: &[HealthFinding]) -> csi::VolumeHealth {
    let entries = findings.iter().map(|finding| csi::volume_health::VolumeHealthEntry {
        status: match finding.status {
            HealthStatus::Degraded => csi::VolumeHealthErrorType::Degraded.into(),
            HealthStatus::Inaccessible => csi::VolumeHealthErrorType::Inaccessible.into(),
            HealthStatus::DataLoss => csi::VolumeHealthErrorType::DataLoss.into(),
        },
        reason: finding.reason.to_string(),
        message: finding.message.clone(),
    });
    csi::VolumeHealth { volume_id, health_statuses: entries.collect() }
}
