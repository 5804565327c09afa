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
    /// The use of a volume on this node, whatever its generation: what brings it here and takes it away.
    Use {
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

    /// The key of the use of a volume on this node.
    pub fn use_of(instance: InstanceId, volume: VolumeKey) -> Self {
        Self::Use { instance, volume }
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

/// All that one call touches: what it changes it holds alone, what it only needs as it is it shares with others that do.
///
/// | a call                                | the volume | its use on this node            |
/// |---------------------------------------|------------|---------------------------------|
/// | makes, changes or removes it          | alone      | alone                           |
/// | brings it to this node, takes it away | shared     | alone                           |
/// | copies from it                        | shared     | shared, or not at all: see [`of_source`](Keys::of_source) |
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

    /// Those of what makes, changes or removes a volume.
    pub fn of_change(instance: InstanceId, volume: VolumeKey) -> [Key; 2] {
        [Key::volume(instance.clone(), volume.clone()), Key::use_of(instance, volume)]
    }

    /// Those of what brings a volume to this node, or takes it away.
    pub fn of_use(instance: InstanceId, volume: VolumeKey) -> Self {
        Self::new([Key::use_of(instance.clone(), volume.clone())], [Key::volume(instance, volume)])
    }

    /// Those that a call shares which copies from a volume. Where it copies from volumes `in_use` they come and go
    /// meanwhile; else what they are used for stays as it is.
    pub fn of_source(source: &VolumeId, in_use: bool) -> impl Iterator<Item = Key> + use<> {
        let [volume, its_use] = Self::of_change(source.instance.clone(), source.key.clone());
        [Some(volume), (!in_use).then_some(its_use)].into_iter().flatten()
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
            Self::Use { instance, volume } => write!(f, "the use of volume {volume} of instance {instance}"),
        }
    }
}
