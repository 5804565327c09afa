//! Answers that describe a volume.

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{InstanceId, Reach, Volume, VolumeId};

use super::topology::Segment;
use crate::mount::{Finding, FindingStatus, Unit, Usage};

/// A volume as CSI carries it: the same at every call that names it.
pub fn volume_to_wire(volume: &Volume, instance: &InstanceId, reach: Reach, segment: &Segment) -> csi::Volume {
    let id = VolumeId { instance: instance.clone(), key: volume.key.clone(), generation: volume.generation.clone() };
    csi::Volume {
        capacity_bytes: volume.capacity.to_wire(),
        volume_id: id.to_string(),
        volume_context: volume.context.clone().into_iter().collect(),
        content_source: None,
        accessible_topology: match reach {
            Reach::Node => vec![segment.to_wire()],
            Reach::Everywhere => Vec::new(),
        },
    }
}

/// A usage as CSI carries it.
pub fn usage_to_wire(usage: &Usage) -> csi::VolumeUsage {
    csi::VolumeUsage {
        available: usage.available as i64,
        total: usage.total as i64,
        used: usage.used as i64,
        unit: match usage.unit {
            Unit::Bytes => csi::volume_usage::Unit::Bytes.into(),
            Unit::Inodes => csi::volume_usage::Unit::Inodes.into(),
        },
    }
}

/// The health of a volume as CSI carries it: no entry where nothing adverse is known.
pub fn volume_health_to_wire(volume_id: String, findings: &[Finding]) -> csi::VolumeHealth {
    let entries = findings.iter().map(|finding| csi::volume_health::VolumeHealthEntry {
        status: match finding.status {
            FindingStatus::Degraded => csi::VolumeHealthErrorType::Degraded.into(),
            FindingStatus::Inaccessible => csi::VolumeHealthErrorType::Inaccessible.into(),
            FindingStatus::DataLoss => csi::VolumeHealthErrorType::DataLoss.into(),
        },
        reason: finding.reason.to_string(),
        message: finding.message.clone(),
    });
    csi::VolumeHealth { volume_id, health_statuses: entries.collect() }
}
