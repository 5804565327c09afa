//! A volume as an orchestrator knows it.

use std::path::{Path, PathBuf};

use dunnage_csi_proto::csi::v1 as csi;

/// What an orchestrator keeps of a volume that it made, and where it uses it: makes the requests of its life.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What CreateVolume answered.
    pub made: csi::Volume,
    /// How it is used.
    pub capability: csi::VolumeCapability,
    /// Where it is staged; `None` for a plugin without STAGE_UNSTAGE_VOLUME.
    pub staging: Option<PathBuf>,
    /// Where it is published.
    pub target: PathBuf,
}

fn text(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

impl Volume {
    /// A volume that is used below `folder`, which does not need to be there.
    pub fn new(made: csi::Volume, capability: csi::VolumeCapability, folder: &Path, stages: bool) -> Self {
        let staging = stages.then(|| folder.join("staging"));
        Self { made, capability, staging, target: folder.join("target") }
    }

    /// Its id.
    pub fn id(&self) -> String {
        self.made.volume_id.clone()
    }

    /// NodeStageVolume.
    pub fn stage(&self) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            volume_id: self.id(),
            staging_target_path: text(self.staging.as_deref()),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.made.volume_context.clone(),
            ..Default::default()
        }
    }

    /// NodePublishVolume.
    pub fn publish(&self) -> csi::NodePublishVolumeRequest {
        csi::NodePublishVolumeRequest {
            volume_id: self.id(),
            staging_target_path: text(self.staging.as_deref()),
            target_path: text(Some(&self.target)),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.made.volume_context.clone(),
            ..Default::default()
        }
    }

    /// NodeUnpublishVolume.
    pub fn unpublish(&self) -> csi::NodeUnpublishVolumeRequest {
        csi::NodeUnpublishVolumeRequest { volume_id: self.id(), target_path: text(Some(&self.target)) }
    }

    /// NodeUnstageVolume.
    pub fn unstage(&self) -> csi::NodeUnstageVolumeRequest {
        csi::NodeUnstageVolumeRequest { volume_id: self.id(), staging_target_path: text(self.staging.as_deref()) }
    }

    /// NodeExpandVolume to `bytes`, seen at the target.
    pub fn expand_on_node(&self, bytes: i64) -> csi::NodeExpandVolumeRequest {
        csi::NodeExpandVolumeRequest {
            volume_id: self.id(),
            volume_path: text(Some(&self.target)),
            staging_target_path: text(self.staging.as_deref()),
            capacity_range: Some(csi::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        }
    }

    /// NodeGetVolumeStats at the target.
    pub fn stats(&self) -> csi::NodeGetVolumeStatsRequest {
        csi::NodeGetVolumeStatsRequest {
            volume_id: self.id(),
            volume_path: text(Some(&self.target)),
            staging_target_path: text(self.staging.as_deref()),
        }
    }

    /// DeleteVolume.
    pub fn delete(&self) -> csi::DeleteVolumeRequest {
        csi::DeleteVolumeRequest { volume_id: self.id(), ..Default::default() }
    }
}
