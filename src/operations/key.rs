//! What a call touches.

use std::fmt;
use std::sync::Arc;

use dunnage_driver_api::{InstanceId, SnapshotKey, VolumeId, VolumeKey};

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
    /// A snapshot, whatever its generation.
    Snapshot {
        /// The store.
        instance: InstanceId,
        /// What the snapshot is found by there.
        snapshot: SnapshotKey,
    },
    /// A group of snapshots, whatever its generation.
    Group {
        /// The store.
        instance: InstanceId,
        /// What the group is found by there.
        group: SnapshotKey,
    },
}

impl Key {
    /// The key of a volume that is being made, from the requested name's key.
    pub fn volume(instance: InstanceId, volume: VolumeKey) -> Self {
        Self::Volume { instance, volume }
    }

    /// The key of a snapshot.
    pub fn snapshot(instance: InstanceId, snapshot: SnapshotKey) -> Self {
        Self::Snapshot { instance, snapshot }
    }

    /// The key of a group of snapshots.
    pub fn group(instance: InstanceId, group: SnapshotKey) -> Self {
        Self::Group { instance, group }
    }
}

/// All that one call touches: what it changes it holds alone, what it copies from it shares with others that do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Those held alone first; both parts are sorted, and each key is there once.
    all: Arc<[Key]>,
    alone: usize,
}

impl Keys {
    /// Keys that are held alone, and others that are shared.
    pub fn new(alone: impl IntoIterator<Item = Key>, shared: impl IntoIterator<Item = Key>) -> Self {
        let mut all: Vec<Key> = alone.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        let alone = all.len();
        let mut shared: Vec<Key> = shared.into_iter().filter(|key| !all.contains(key)).collect();
        shared.sort_unstable();
        shared.dedup();
        all.append(&mut shared);
        Self { all: all.into(), alone }
    }

    /// All of them.
    pub(super) fn all(&self) -> &Arc<[Key]> {
        &self.all
    }

    /// Those that are held alone.
    pub(super) fn alone(&self) -> &[Key] {
        &self.all[..self.alone]
    }

    /// Those that are shared.
    pub(super) fn shared(&self) -> &[Key] {
        &self.all[self.alone..]
    }
}

impl<const N: usize> From<[Key; N]> for Keys {
    fn from(keys: [Key; N]) -> Self {
        Self::new(keys, [])
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
            Self::Snapshot { instance, snapshot } => write!(f, "snapshot {snapshot} of instance {instance}"),
            Self::Group { instance, group } => write!(f, "group {group} of instance {instance}"),
        }
    }
}
