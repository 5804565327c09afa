//! What is wrong with a volume now.

use crate::capacity::Bytes;
use crate::root::Sizes;

/// One thing that is wrong with a volume now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthFinding {
    /// How bad it is.
    pub status: HealthStatus,
    /// A word for programs, in CamelCase; not twice in one answer.
    pub reason: &'static str,
    /// A sentence for people: what is wrong, with the value, and what the admin can do.
    pub message: String,
}

/// How bad a finding is (CSI VolumeHealthErrorType).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    /// It can be used, but not as well as it should, or not much longer.
    Degraded,
    /// It cannot be used.
    Inaccessible,
    /// Data of it is lost, or very likely so.
    DataLoss,
}

impl HealthFinding {
    /// A finding.
    pub fn new(status: HealthStatus, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// That the store is nearly full, where less than a twentieth of it is free: of each volume that may still need room
    /// of it.
    pub fn nearly_full(sizes: Sizes) -> Option<Self> {
        let (total, available) = (sizes.total.get(), sizes.available.get());
        (available < total / 20).then(|| {
            let message = format!(
                "the store has {} free of {}: writes to the volume will fail when it is full; free some, or grow it",
                Bytes::new(available),
                Bytes::new(total)
            );
            Self::new(HealthStatus::Degraded, "StoreNearlyFull", message)
        })
    }
}
