//! What an orchestrator asks of a volume.

use std::collections::HashMap;

use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type};
use dunnage_csi_proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, TopologyRequirement, VolumeCapability, VolumeContentSource,
};

use crate::client::Offers;

/// How a volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a file system of this type, the plugin's own choice where it is empty.
    Mount(String),
    /// As a raw block device.
    Block,
}

/// A volume as its claim describes it.
#[derive(Debug, Clone)]
pub struct VolumeRequest {
    /// The requested name.
    pub name: String,
    /// The least size in bytes.
    pub required_bytes: i64,
    /// How it is going to be used.
    pub access: Access,
    /// The parameters of its class.
    pub parameters: HashMap<String, String>,
    /// The snapshot that it is to hold.
    pub snapshot_id: Option<String>,
}

impl VolumeRequest {
    /// The request as it goes over the socket to a plugin with these offers: on this node, where that matters.
    pub fn to_wire(&self, offers: &Offers) -> CreateVolumeRequest {
        let topology = offers.topology.clone();
        let snapshot = |snapshot_id| Type::Snapshot(SnapshotSource { snapshot_id });
        CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: Some(CapacityRange { required_bytes: self.required_bytes, limit_bytes: 0 }),
            volume_capabilities: vec![self.capability()],
            parameters: self.parameters.clone(),
            accessibility_requirements: topology
                .map(|here| TopologyRequirement { requisite: vec![here.clone()], preferred: vec![here] }),
            volume_content_source: self
                .snapshot_id
                .clone()
                .map(|id| VolumeContentSource { r#type: Some(snapshot(id)) }),
            ..CreateVolumeRequest::default()
        }
    }

    /// The capability that goes with every call on the volume.
    pub fn capability(&self) -> VolumeCapability {
        capability(&self.access, Mode::SingleNodeWriter)
    }
}

/// A capability of the wire.
pub fn capability(access: &Access, mode: Mode) -> VolumeCapability {
    let access_type = match access {
        Access::Mount(fs_type) => AccessType::Mount(MountVolume { fs_type: fs_type.clone(), ..MountVolume::default() }),
        Access::Block => AccessType::Block(BlockVolume {}),
    };
    VolumeCapability { access_type: Some(access_type), access_mode: Some(AccessMode { mode: mode.into() }) }
}
