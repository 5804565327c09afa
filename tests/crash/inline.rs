//! Lives of volumes that are made and deleted with their pod, in which the host is killed again and again.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::mount;

use crate::killer::Nth;
use crate::life::{Kill, Rig};

impl Rig {
    /// One life of an inline volume, each call repeated after the host was killed. Answers how often that was.
    pub(crate) fn inline_life(&mut self, kill: Kill) -> Result<usize> {
        self.count_kills_anew();
        let (publish, unpublish) = self.inline();
        self.call("publish inline", kill, |client| client.node_publish_volume(publish.clone()))?;
        let data = format!("{}/data", publish.target_path);
        fs::write(&data, "data")?;
        // Whatever the kubelet repeats, the pod keeps what it wrote.
        self.call("publish inline again", kill, |client| client.node_publish_volume(publish.clone()))?;
        ensure!(fs::read_to_string(&data)? == "data", "the data is gone");
        self.call("unpublish inline", kill, |client| client.node_unpublish_volume(unpublish.clone()))?;
        self.nothing_is_left()?;
        Ok(self.kills())
    }

    /// A publish that is killed and not repeated: its pod is gone. Answers whether it was killed.
    pub(crate) fn inline_given_up(&mut self, nth: Nth) -> Result<bool> {
        let (publish, unpublish) = self.inline();
        let killed = self.killed_in(nth, |client| client.node_publish_volume(publish.clone()))?.is_none();
        self.client().node_unpublish_volume(unpublish)?;
        self.nothing_is_left()?;
        Ok(killed)
    }

    fn inline(&self) -> (csi::NodePublishVolumeRequest, csi::NodeUnpublishVolumeRequest) {
        let target_path = self.pods().join("inline").display().to_string();
        let publish = csi::NodePublishVolumeRequest {
            volume_id: "csi-1".into(),
            target_path: target_path.clone(),
            volume_capability: Some(mount()),
            volume_context: [("csi.storage.k8s.io/ephemeral".into(), "true".into())].into(),
            ..Default::default()
        };
        (publish, csi::NodeUnpublishVolumeRequest { volume_id: "csi-1".into(), target_path })
    }
}
