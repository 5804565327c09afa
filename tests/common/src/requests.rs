//! What tests ask for most.

use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use dunnage_csi_proto::csi::v1::{CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, VolumeCapability};

/// A mebibyte.
pub const MIB: i64 = 1 << 20;
/// A gibibyte.
pub const GIB: i64 = 1 << 30;
/// The access mode of a test that does not care.
pub const MODE: Mode = Mode::SingleNodeWriter;

/// Access as a file system, of the plugin's own choice.
pub fn mount() -> VolumeCapability {
    filesystem("")
}

/// Access as a file system of this type.
pub fn filesystem(fs_type: &str) -> VolumeCapability {
    let mount = MountVolume { fs_type: fs_type.into(), ..MountVolume::default() };
    VolumeCapability {
        access_type: Some(AccessType::Mount(mount)),
        access_mode: Some(AccessMode { mode: MODE.into() }),
    }
}

/// Access as a raw block device.
pub fn block() -> VolumeCapability {
    VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), ..mount() }
}

/// A volume of this name and size, to be used so.
pub fn create(name: &str, bytes: i64, capability: VolumeCapability) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        volume_capabilities: vec![capability],
        ..CreateVolumeRequest::default()
    }
}

/// A volume is to have this size.
pub fn expand(volume_id: &str, bytes: i64) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: volume_id.into(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        ..ControllerExpandVolumeRequest::default()
    }
}
