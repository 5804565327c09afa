//! The controller half: how a volume is found, listed, made, grown and removed.
//!
//! Every call may block; the host runs it on the backend's own threads. Calls that touch one key never run at once;
//! calls for different keys do. A call may come again at any time, also after this process was killed in the middle of
//! it: it then goes on from what it finds.

use crate::capacity::CapacityRange;
use crate::context::Context;
use crate::error::Result;
use crate::health::HealthFinding;
use crate::id::{Generation, SnapshotKey, VolumeKey};
use crate::parameters::Parameters;
use crate::snapshot::{CreateGroupSnapshot, CreateSnapshot, GroupSnapshot, Snapshot};
use crate::volume::{Capacity, CreateVolume, Expanded, Total, Volume};

/// Reading what is there: every backend has it.
pub trait Volumes: Send + Sync {
    /// The volume of this key, or `None` where the store was read, is proven to be ours, and has none.
    ///
    /// # Errors
    /// Whenever the store could not be read: then nothing is known, and "not found" would be a lie.
    fn find(&self, cx: &Context, key: &VolumeKey) -> Result<Option<Volume>>;

    /// At most `limit` volumes in the order of their keys, beginning after `after`. Fewer than `limit` mean that there
    /// are no more.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn list(&self, cx: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>>;

    /// How many volumes there are and how large they are together, for the metrics, or `None` where to know it each of
    /// them would have to be read. Asked twice a minute.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn total(&self, _cx: &Context) -> Result<Option<Total>> {
        Ok(None)
    }

    /// Whether the store answers now, for the health of the backend: asks the store itself, not what is in memory of
    /// it. Asked twice a minute. Unless a driver has something better, it is asked for a volume.
    ///
    /// # Errors
    /// What is wrong with the store, and what the admin can do.
    fn probe(&self, cx: &Context) -> Result<()> {
        self.list(cx, None, 1).map(drop)
    }
}

/// Making and removing volumes (CSI CREATE_DELETE_VOLUME).
pub trait Create: Send + Sync {
    /// Makes the volume; it is durable when this returns. Called only for a key that `find` does not know, perhaps
    /// with the remains of an attempt that was cut off: those are finished or removed, never taken for data.
    ///
    /// A volume that is to hold something ([`CreateVolume::content`]) holds all of it when this returns, and what is done
    /// to the one later does not show in the other. Where that takes long, the copy is work of the driver's own: the
    /// call waits until the deadline and then answers with [`ErrorKind::Running`](crate::ErrorKind::Running), and until
    /// the copy is whole and durable `find` does not know the volume.
    ///
    /// # Errors
    /// After an error nothing of the volume is left, or what is left is found by the next attempt.
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for a size that can never be,
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) for one that cannot be now.
    fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume>;

    /// Removes the volume: when this returns its name is free and its data is out of reach, durably; space may come
    /// back later. The host has seen to it that the volume is in use nowhere on this node.
    ///
    /// # Errors
    /// After an error the volume still exists, or the next attempt finishes the removal.
    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()>;

    /// Ends the making of a volume that `find` does not know yet, with all that there is of it: for a driver whose copies are
    /// work of its own, and may go on when nobody asks for them any more. Succeeds where this very generation is not being
    /// made.
    ///
    /// # Errors
    /// After an error it may still be made.
    fn abandon(&self, _cx: &Context, _key: &VolumeKey, _generation: &Generation) -> Result<()> {
        Ok(())
    }

    /// Whether a volume that `find` knows is only what a delete left that was cut off after the data had gone. It is
    /// then no answer to a CreateVolume of its name: the host finishes the delete and makes a new one. A driver whose
    /// removal is one step has no such remains.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn is_half_deleted(&self, _cx: &Context, _volume: &Volume) -> Result<bool> {
        Ok(false)
    }
}

/// Growing volumes (CSI EXPAND_VOLUME).
pub trait Expand: Send + Sync {
    /// Makes the volume at least as large as required and at most as large as the limit; durable when this returns. A
    /// volume that is large enough already stays as it is. Never makes a volume smaller.
    ///
    /// # Errors
    /// Before anything is changed: [`OutOfRange`](crate::ErrorKind::OutOfRange) where it can never fit,
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) where it does not fit now. The host answers both with
    /// OUT_OF_RANGE, as a resizer takes RESOURCE_EXHAUSTED for "still running".
    fn expand(&self, cx: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded>;
}

/// Changing what class parameters made (CSI MODIFY_VOLUME).
pub trait Modify: Send + Sync {
    /// Changes the volume, also while it is in use, as far as these parameters say it: what is not named stays as it is.
    /// They were checked against the backend's type for them. Durable when this returns.
    ///
    /// # Errors
    /// Before anything is changed.
    fn modify(&self, cx: &Context, volume: &Volume, parameters: &Parameters) -> Result<()>;
}

/// Taking, finding, listing and removing snapshots (CSI CREATE_DELETE_SNAPSHOT, LIST_SNAPSHOTS, GET_SNAPSHOT). Volumes
/// are made from them by [`Create`].
pub trait Snapshots: Send + Sync {
    /// The snapshot of this key, or `None` where the store was read, is proven to be ours, and has none. One that is
    /// still being cut does not exist.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn find(&self, cx: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>>;

    /// At most `limit` snapshots in the order of their keys, beginning after `after`. Fewer than `limit` mean that there
    /// are no more.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn list(&self, cx: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>>;

    /// Cuts the snapshot: when this returns it is durable, and whatever is written to the volume from now on is not in
    /// it. All that a workload had flushed before the call is in it; [`Context::hold`] makes a mounted file system hold
    /// still. Where the rest takes long, `ready` is false and the driver goes on by itself, also after a restart. Called
    /// only for a key that `find` does not know, perhaps with the remains of an attempt that was cut off.
    ///
    /// # Errors
    /// After an error nothing of the snapshot is left, or what is left is removed by the next attempt.
    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot>;

    /// Removes the snapshot: when this returns its name is free and its data is out of reach, durably; space may come
    /// back later. Volumes that were made from it stay as they are.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) that names what still needs it. After an error the
    /// snapshot still exists, or the next attempt finishes the removal.
    fn delete(&self, cx: &Context, snapshot: &Snapshot) -> Result<()>;

    /// Gives up the snapshot of this generation that is being copied, which [`find`](Self::find) does not know yet: its id is
    /// to be deleted. Succeeds where there is none.
    ///
    /// # Errors
    /// Where the copy cannot be ended.
    fn abandon(&self, _cx: &Context, _key: &SnapshotKey, _generation: &Generation) -> Result<()> {
        Ok(())
    }

    /// As [`Create::is_half_deleted`], for a snapshot.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn is_half_deleted(&self, _cx: &Context, _snapshot: &Snapshot) -> Result<bool> {
        Ok(false)
    }
}

/// Snapshots of several volumes of one moment (CSI CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT). The members are snapshots that
/// [`Snapshots`] finds and lists, and from which [`Create`] makes volumes.
pub trait Groups: Send + Sync {
    /// The group of this key, or `None` where the store was read, is proven to be ours, and has none. One that is not
    /// whole does not exist, and neither do its members.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn find(&self, cx: &Context, key: &SnapshotKey) -> Result<Option<GroupSnapshot>>;

    /// Cuts all members at one moment, so that no write to one of them is in it that came after a write to another that
    /// is not; durable when this returns. [`Context::hold`] holds all their file systems at once.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) that names the member which cannot be cut so. After an
    /// error no member is left, or what is left is removed by the next attempt.
    fn create(&self, cx: &Context, request: &CreateGroupSnapshot) -> Result<GroupSnapshot>;

    /// Removes the group with all its members, durably.
    ///
    /// # Errors
    /// As [`Snapshots::delete`].
    fn delete(&self, cx: &Context, group: &GroupSnapshot) -> Result<()>;
}

/// Telling what the store knows to be wrong with a volume (CSI GET_VOLUME_HEALTH, LIST_VOLUME_HEALTH).
pub trait Health: Send + Sync {
    /// What is wrong with the volume now, wherever it is used; nothing where nothing is known. Asked for one volume after
    /// the other by a list: it should be quick.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn health(&self, cx: &Context, volume: &Volume) -> Result<Vec<HealthFinding>>;
}

/// Telling what room there is (CSI GET_CAPACITY).
pub trait Room: Send + Sync {
    /// What new volumes of these parameters may take, less what is promised to those that exist or are being made.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn capacity(&self, cx: &Context, parameters: &Parameters) -> Result<Capacity>;
}
