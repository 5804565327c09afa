//! What a call touches.

use std::fmt;

use dunnage_driver_api::{InstanceId, VolumeId, VolumeKey};

/// What a call touches, and holds while it runs. Keys are of instances, never of plugins or backends: two plugins in
/// front of one store exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Key {
    /// A volume, whatever its generation: a late call for a deleted one excludes its successor too.
    Volume {
        /// The store.
        instance: InstanceId,
        /// What the volume is found by there.
        volume: VolumeKey,
    },
}

impl Key {
    /// The key of a volume that is being made, from the requested name's key.
    pub fn volume(instance: InstanceId, volume: VolumeKey) -> Self {
        Self::Volume { instance, volume }
    }
}

impl From<&VolumeId> for Key {
    fn from(id: &VolumeId) -> Self {
        Self::volume(id.instance.clone(), id.key.clone())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume { instance, volume } => write!(f, "volume {volume} of instance {instance}"),
        }
    }
}
