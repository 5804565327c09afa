//! What the plugin remembers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dunnage_csi_proto::csi::v1::volume_content_source::{self, SnapshotSource, VolumeSource};
use dunnage_csi_proto::csi::v1::{self as csi, VolumeContentSource};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) next: u64,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) groups: BTreeMap<String, Group>,
    /// The names of volumes that are gone, by their ids.
    pub(super) gone: BTreeMap<String, String>,
    /// By volume: whether read-only.
    pub(super) attached: BTreeMap<String, bool>,
    /// By staging path: the volume.
    pub(super) staged: BTreeMap<String, String>,
    /// By target path.
    pub(super) published: BTreeMap<String, Published>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Volume {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) capacity: i64,
    pub(super) block: bool,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) source: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Source {
    Snapshot(String),
    Volume(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) size: i64,
    pub(super) block: bool,
    pub(super) time: (i64, i32),
    pub(super) ready: bool,
    pub(super) group: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) sources: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) time: (i64, i32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) volume: String,
    pub(super) readonly: bool,
    pub(super) capability: String,
    pub(super) several: bool,
}

impl State {
    pub(super) fn read(root: &Path) -> Self {
        fs::read(root.join("state.json"))
            .map_or_else(|_| Self::default(), |text| serde_json::from_slice(&text).unwrap())
    }

    pub(super) fn write(&self, root: &Path) {
        let new = root.join("state.new");
        fs::write(&new, serde_json::to_vec(self).unwrap()).unwrap();
        fs::rename(new, root.join("state.json")).unwrap();
    }

    pub(super) fn id(&mut self, letter: char) -> String {
        self.next += 1;
        format!("{letter}-{}", self.next)
    }
}

impl Source {
    pub(super) fn of(source: Option<&VolumeContentSource>) -> Option<Self> {
        match source?.r#type.as_ref()? {
            volume_content_source::Type::Snapshot(own) => Some(Self::Snapshot(own.snapshot_id.clone())),
            volume_content_source::Type::Volume(own) => Some(Self::Volume(own.volume_id.clone())),
        }
    }

    pub(super) fn to_wire(&self) -> VolumeContentSource {
        let r#type = match self.clone() {
            Self::Snapshot(snapshot_id) => volume_content_source::Type::Snapshot(SnapshotSource { snapshot_id }),
            Self::Volume(volume_id) => volume_content_source::Type::Volume(VolumeSource { volume_id }),
        };
        VolumeContentSource { r#type: Some(r#type) }
    }
}

impl Volume {
    pub(super) fn to_wire(&self) -> csi::Volume {
        csi::Volume {
            capacity_bytes: self.capacity,
            volume_id: self.id.clone(),
            volume_context: [("kind".to_owned(), if self.block { "block" } else { "mount" }.to_owned())].into(),
            content_source: self.source.as_ref().map(Source::to_wire),
            accessible_topology: vec![super::here()],
        }
    }
}

impl Snapshot {
    pub(super) fn to_wire(&self) -> csi::Snapshot {
        csi::Snapshot {
            size_bytes: self.size,
            snapshot_id: self.id.clone(),
            source_volume_id: self.source.clone(),
            creation_time: Some(prost_types::Timestamp { seconds: self.time.0, nanos: self.time.1 }),
            ready_to_use: self.ready,
            group_snapshot_id: self.group.clone(),
            accessible_topology: Vec::new(),
        }
    }
}
