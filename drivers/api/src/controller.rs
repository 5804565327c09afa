//! The controller half: how a volume is found, listed, made, grown and removed.
//!
//! Every call may block; the host runs it on the backend's own threads. Calls that touch one key never run at once;
//! calls for different keys do. A call may come again at any time, also after this process was killed in the middle of
//! it: it then goes on from what it finds.

use crate::capacity::CapacityRange;
use crate::context::Context;
use crate::error::Result;
use crate::id::VolumeKey;
use crate::parameters::Parameters;
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

/// Telling what room there is (CSI GET_CAPACITY).
pub trait Room: Send + Sync {
    /// What new volumes of these parameters may take, less what is promised to those that exist or are being made.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn capacity(&self, cx: &Context, parameters: &Parameters) -> Result<Capacity>;
}
