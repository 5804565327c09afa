//! What is wrong with a volume now.

mod btrfs;
mod file_system;
mod ioctl;
mod xfs;

use std::os::fd::AsFd;
use std::path::Path;

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

    /// What the file system of a volume, by an open file on it, has noted of its own damage and of its devices: the
    /// counts of ext4 and btrfs, and what XFS has found. Asks the kernel, which for XFS reads what it does not remember.
    pub fn of_file_system(file: impl AsFd) -> Vec<Self> {
        distinct(file_system::troubles(file).iter().map(file_system::Trouble::of_volume))
    }

    /// The same of the file system of the store `place`: a finding of each of its volumes, since none is named.
    pub fn of_store(file: impl AsFd, place: &Path) -> Vec<Self> {
        distinct(file_system::troubles(file).iter().map(|trouble| trouble.of_store(place)))
    }
}

/// The same of the file system of a store as what `check` says.
pub(crate) fn store_findings(file: impl AsFd, place: &Path) -> impl Iterator<Item = crate::Finding> {
    file_system::troubles(file).into_iter().map(move |trouble| trouble.finding(place))
}

/// One finding for each reason, with the messages of all.
fn distinct(findings: impl Iterator<Item = HealthFinding>) -> Vec<HealthFinding> {
    let mut all: Vec<HealthFinding> = Vec::new();
    for finding in findings {
        match all.iter_mut().find(|earlier| earlier.reason == finding.reason) {
            Some(earlier) => earlier.message = format!("{}; {}", earlier.message, finding.message),
            None => all.push(finding),
        }
    }
    all
}
