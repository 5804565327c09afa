//! What the plugin says of its health, and how a mutant tells errors.

use dunnage_csi_proto::csi::v1::*;
use tonic::{Code, Status};

use super::Plugin;
use super::controller::no_volume;
use crate::mutant::Mutant;

impl Plugin {
    /// An error as a mutant tells it.
    pub(super) fn spoiled(&self, refused: Status) -> Status {
        if self.is(Mutant::ErrorsWithoutMessage) {
            return Status::new(refused.code(), "");
        }
        if self.is(Mutant::ErrorsWithDetails) {
            return Status::with_details(refused.code(), refused.message(), (&b"details"[..]).into());
        }
        if self.is(Mutant::EverythingIsInternal) {
            return Status::new(Code::Internal, refused.message());
        }
        refused
    }

    pub(super) fn health(&self, id: &str) -> Result<VolumeHealth, Status> {
        self.required("volume_id", id, Mutant::HealthWithoutId)?;
        if !self.state().volumes.contains_key(id)
            && !self.is(Mutant::HealthOfUnknown)
            && !self.is(Mutant::HealthWithoutId)
        {
            return Err(no_volume(id));
        }
        let entry = volume_health::VolumeHealthEntry {
            status: VolumeHealthErrorType::Degraded.into(),
            reason: "SlowDisk".to_owned(),
            message: "the disk is slow".to_owned(),
        };
        let reason = if self.is(Mutant::HealthReasonIsMissing) { "" } else { "NearlyFull" };
        let other = volume_health::VolumeHealthEntry { reason: reason.to_owned(), ..entry.clone() };
        let health_statuses =
            if self.is(Mutant::HealthTwiceTheSame) { vec![entry.clone(), entry] } else { vec![entry, other] };
        let volume_id = if self.is(Mutant::HealthOfAnother) { "other".to_owned() } else { id.to_owned() };
        Ok(VolumeHealth { volume_id, health_statuses })
    }
}
