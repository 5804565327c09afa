//! The calls that attach a volume to a node, stage, publish and take back.

use std::collections::HashMap;
use std::path::Path;

use dunnage_csi_proto::csi::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, NodeExpandVolumeRequest,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Volume, VolumeCapability, VolumeUsage,
};

use crate::client::plugin::{answer, bounded};
use crate::client::{Plugin, Result};

/// A path as the wire carries it. Paths of ours are UTF-8; another one would be refused by the plugin, by name.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn text_or_empty(path: Option<&Path>) -> String {
    path.map(text).unwrap_or_default()
}

impl Plugin {
    /// ControllerPublishVolume to this plugin's own node: the publish context.
    pub async fn controller_publish_volume(
        &self,
        volume: &Volume,
        capability: VolumeCapability,
    ) -> Result<HashMap<String, String>> {
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: self.offers().node_id.clone(),
            volume_capability: Some(capability),
            volume_context: volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let answered = self.controller.clone().controller_publish_volume(bounded(request)).await;
        answer("ControllerPublishVolume", answered).map(|published| published.publish_context)
    }

    /// ControllerUnpublishVolume from this plugin's own node.
    pub async fn controller_unpublish_volume(&self, volume_id: &str) -> Result<()> {
        let request = ControllerUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: self.offers().node_id.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        let answered = self.controller.clone().controller_unpublish_volume(bounded(request)).await;
        answer("ControllerUnpublishVolume", answered).map(drop)
    }

    /// NodeStageVolume.
    pub async fn node_stage_volume(
        &self,
        volume: &Volume,
        publish_context: &HashMap<String, String>,
        staging: &Path,
        capability: VolumeCapability,
    ) -> Result<()> {
        let request = NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: text(staging),
            volume_capability: Some(capability),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        answer("NodeStageVolume", self.node.clone().node_stage_volume(bounded(request)).await).map(drop)
    }

    /// NodeUnstageVolume.
    pub async fn node_unstage_volume(&self, volume_id: &str, staging: &Path) -> Result<()> {
        let request = NodeUnstageVolumeRequest { volume_id: volume_id.to_owned(), staging_target_path: text(staging) };
        answer("NodeUnstageVolume", self.node.clone().node_unstage_volume(bounded(request)).await).map(drop)
    }

    /// NodePublishVolume; `staging` is `None` where the plugin does not stage.
    pub async fn node_publish_volume(
        &self,
        volume: &Volume,
        publish_context: &HashMap<String, String>,
        staging: Option<&Path>,
        target: &Path,
        (capability, readonly): (VolumeCapability, bool),
    ) -> Result<()> {
        let request = NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: text_or_empty(staging),
            target_path: text(target),
            volume_capability: Some(capability),
            readonly,
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        answer("NodePublishVolume", self.node.clone().node_publish_volume(bounded(request)).await).map(drop)
    }

    /// NodeUnpublishVolume.
    pub async fn node_unpublish_volume(&self, volume_id: &str, target: &Path) -> Result<()> {
        let request = NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path: text(target) };
        answer("NodeUnpublishVolume", self.node.clone().node_unpublish_volume(bounded(request)).await).map(drop)
    }

    /// NodeGetVolumeStats.
    pub async fn node_get_volume_stats(
        &self,
        volume_id: &str,
        volume_path: &Path,
        staging: Option<&Path>,
    ) -> Result<Vec<VolumeUsage>> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume_id.to_owned(),
            volume_path: text(volume_path),
            staging_target_path: text_or_empty(staging),
        };
        let answered = self.node.clone().node_get_volume_stats(bounded(request)).await;
        answer("NodeGetVolumeStats", answered).map(|stats| stats.usage)
    }

    /// NodeExpandVolume: the size that the volume has afterwards, 0 where the plugin does not say.
    pub async fn node_expand_volume(
        &self,
        volume_id: &str,
        volume_path: &Path,
        staging: Option<&Path>,
        (required_bytes, capability): (i64, VolumeCapability),
    ) -> Result<i64> {
        let request = NodeExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            volume_path: text(volume_path),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
            staging_target_path: text_or_empty(staging),
            volume_capability: Some(capability),
            ..NodeExpandVolumeRequest::default()
        };
        let answered = self.node.clone().node_expand_volume(bounded(request)).await;
        answer("NodeExpandVolume", answered).map(|grown| grown.capacity_bytes)
    }
}
