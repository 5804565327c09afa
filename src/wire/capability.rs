//! Volume capabilities.

use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessMode as WireMode, AccessType, BlockVolume, MountVolume};
use dunnage_csi_proto::csi::v1::{self as csi};
use dunnage_driver_api::{Access, AccessMode, Error, FsType, MountAccess, Result, VolumeCapability};

use super::limits::{missing, short};

/// The limit of all mount flags together, in bytes (CSI VolumeCapability.MountVolume.mount_flags).
const MOUNT_FLAGS: usize = 4 << 10;

/// A required list of capabilities: at least one.
///
/// # Errors
/// As [`capability`], or where there is none.
pub fn capabilities(wire: Vec<csi::VolumeCapability>) -> Result<Vec<VolumeCapability>> {
    if wire.is_empty() {
        return Err(missing("volume_capabilities"));
    }
    wire.into_iter().map(|one| capability(Some(one))).collect()
}

/// A required capability.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) that names the field that is missing or wrong.
pub fn capability(wire: Option<csi::VolumeCapability>) -> Result<VolumeCapability> {
    let wire = wire.ok_or_else(|| missing("volume_capability"))?;
    let access = match wire.access_type.ok_or_else(|| missing("volume_capability.access_type"))? {
        AccessType::Block(BlockVolume {}) => Access::Block,
        AccessType::Mount(wire) => Access::Mount(mount_access(wire)?),
    };
    let mode = mode(wire.access_mode.ok_or_else(|| missing("volume_capability.access_mode"))?)?;
    Ok(VolumeCapability { access, mode })
}

fn mount_access(wire: MountVolume) -> Result<MountAccess> {
    short("fs_type", &wire.fs_type)?;
    short("volume_mount_group", &wire.volume_mount_group)?;
    let size: usize = wire.mount_flags.iter().map(String::len).sum();
    if size > MOUNT_FLAGS {
        return Err(Error::invalid(format!("mount_flags have {size} bytes: at most {MOUNT_FLAGS} are allowed")));
    }
    let group = wire.volume_mount_group;
    Ok(MountAccess {
        fs_type: if wire.fs_type.is_empty() { None } else { Some(wire.fs_type.parse::<FsType>()?) },
        mount_flags: wire.mount_flags,
        volume_mount_group: match group.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| Error::invalid(format!("volume_mount_group {text:?} is not the number of a group")))?,
            ),
        },
    })
}

fn mode(wire: WireMode) -> Result<AccessMode> {
    Ok(match Mode::try_from(wire.mode) {
        Ok(Mode::SingleNodeWriter) => AccessMode::SingleNodeWriter,
        Ok(Mode::SingleNodeReaderOnly) => AccessMode::SingleNodeReaderOnly,
        Ok(Mode::MultiNodeReaderOnly) => AccessMode::MultiNodeReaderOnly,
        Ok(Mode::MultiNodeSingleWriter) => AccessMode::MultiNodeSingleWriter,
        Ok(Mode::MultiNodeMultiWriter) => AccessMode::MultiNodeMultiWriter,
        Ok(Mode::SingleNodeSingleWriter) => AccessMode::SingleNodeSingleWriter,
        Ok(Mode::SingleNodeMultiWriter) => AccessMode::SingleNodeMultiWriter,
        Ok(Mode::Unknown) => return Err(Error::invalid("access_mode is UNKNOWN: name how the volume is to be used")),
        Err(_) => return Err(Error::invalid(format!("access_mode {} is not one of CSI 1.13", wire.mode))),
    })
}

/// A capability as CSI carries it.
pub fn capability_to_wire(capability: &VolumeCapability) -> csi::VolumeCapability {
    let access_type = match &capability.access {
        Access::Block => AccessType::Block(BlockVolume {}),
        Access::Mount(mount) => AccessType::Mount(MountVolume {
            fs_type: mount.fs_type.map(|fs_type| fs_type.to_string()).unwrap_or_default(),
            mount_flags: mount.mount_flags.clone(),
            volume_mount_group: mount.volume_mount_group.map(|group| group.to_string()).unwrap_or_default(),
        }),
    };
    let mode = match capability.mode {
        AccessMode::SingleNodeWriter => Mode::SingleNodeWriter,
        AccessMode::SingleNodeReaderOnly => Mode::SingleNodeReaderOnly,
        AccessMode::MultiNodeReaderOnly => Mode::MultiNodeReaderOnly,
        AccessMode::MultiNodeSingleWriter => Mode::MultiNodeSingleWriter,
        AccessMode::MultiNodeMultiWriter => Mode::MultiNodeMultiWriter,
        AccessMode::SingleNodeSingleWriter => Mode::SingleNodeSingleWriter,
        AccessMode::SingleNodeMultiWriter => Mode::SingleNodeMultiWriter,
    };
    csi::VolumeCapability { access_type: Some(access_type), access_mode: Some(WireMode { mode: mode.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = VolumeCapability> {
        let mount = MountAccess {
            fs_type: Some(FsType::Xfs),
            mount_flags: vec!["noatime".into()],
            volume_mount_group: Some(1000),
        };
        AccessMode::ALL.into_iter().flat_map(move |mode| {
            [Access::Block, Access::Mount(MountAccess::default()), Access::Mount(mount.clone())]
                .map(|access| VolumeCapability { access, mode })
        })
    }

    #[test]
    fn every_capability_survives_the_wire() {
        for one in all() {
            assert_eq!(capability(Some(capability_to_wire(&one))).unwrap(), one);
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let good = capability_to_wire(&all().next().unwrap());
        for (wire, words) in [
            (None, "volume_capability is missing"),
            (Some(csi::VolumeCapability { access_type: None, ..good.clone() }), "access_type is missing"),
            (Some(csi::VolumeCapability { access_mode: None, ..good.clone() }), "access_mode is missing"),
            (Some(csi::VolumeCapability { access_mode: Some(WireMode { mode: 0 }), ..good.clone() }), "UNKNOWN"),
            (Some(csi::VolumeCapability { access_mode: Some(WireMode { mode: 99 }), ..good }), "99"),
        ] {
            let error = capability(wire).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
