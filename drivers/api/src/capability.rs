//! How a volume is to be used (CSI VolumeCapability).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::Quoted;

/// How a volume is to be used: as what, and by whom at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VolumeCapability {
    /// As a file system or as a raw block device.
    pub access: Access,
    /// By how many nodes and writers at once.
    pub mode: AccessMode,
}

/// As what a volume is used (CSI access_type).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Access {
    /// As a raw block device.
    Block,
    /// As a file system, mounted.
    Mount(MountAccess),
}

/// What a mounted volume is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct MountAccess {
    /// The file system; `None` leaves the choice to the backend.
    pub fs_type: Option<FsType>,
    /// Options in the words of mount(8), possibly with secrets in them: never logged.
    pub mount_flags: Vec<String>,
    /// The numeric group that is to own the files (CSI VOLUME_MOUNT_GROUP).
    pub volume_mount_group: Option<u32>,
}

/// Says how many flags there are and not which: CSI allows secrets in them.
impl fmt::Debug for MountAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountAccess")
            .field("fs_type", &self.fs_type)
            .field("mount_flags", &self.mount_flags.len())
            .field("volume_mount_group", &self.volume_mount_group)
            .finish()
    }
}

/// By how many nodes and writers at once a volume is used (CSI AccessMode). UNKNOWN is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AccessMode {
    /// One node, read and write.
    SingleNodeWriter,
    /// One node, read only.
    SingleNodeReaderOnly,
    /// Many nodes, read only.
    MultiNodeReaderOnly,
    /// Many nodes, one of which writes.
    MultiNodeSingleWriter,
    /// Many nodes, read and write.
    MultiNodeMultiWriter,
    /// One node, one target path, read and write.
    SingleNodeSingleWriter,
    /// One node, many target paths, read and write.
    SingleNodeMultiWriter,
}

impl AccessMode {
    /// Every mode.
    pub const ALL: [Self; 7] = [
        Self::SingleNodeWriter,
        Self::SingleNodeReaderOnly,
        Self::MultiNodeReaderOnly,
        Self::MultiNodeSingleWriter,
        Self::MultiNodeMultiWriter,
        Self::SingleNodeSingleWriter,
        Self::SingleNodeMultiWriter,
    ];

    /// Whether nobody may write.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }

    /// Whether one node alone may use the volume.
    pub fn is_single_node(self) -> bool {
        !matches!(self, Self::MultiNodeReaderOnly | Self::MultiNodeSingleWriter | Self::MultiNodeMultiWriter)
    }

    /// Whether a node may publish the volume at one target path alone.
    pub fn is_single_target(self) -> bool {
        matches!(self, Self::SingleNodeSingleWriter)
    }
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleNodeWriter => "SINGLE_NODE_WRITER",
            Self::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
            Self::MultiNodeReaderOnly => "MULTI_NODE_READER_ONLY",
            Self::MultiNodeSingleWriter => "MULTI_NODE_SINGLE_WRITER",
            Self::MultiNodeMultiWriter => "MULTI_NODE_MULTI_WRITER",
            Self::SingleNodeSingleWriter => "SINGLE_NODE_SINGLE_WRITER",
            Self::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
        })
    }
}

/// A file system that the mount engine can make, check, mount and grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FsType {
    /// Every file system.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Its name in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FsType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|fs_type| fs_type.as_str() == text).ok_or_else(|| {
            Error::invalid(format!(
                "fs_type {} is not known here: use ext4, xfs or btrfs, or leave it empty",
                Quoted(text)
            ))
        })
    }
}
