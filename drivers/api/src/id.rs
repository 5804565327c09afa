//! What a volume is called: the instance it lives in, the key made from its name, and its generation.
//!
//! The text of a [`VolumeId`] is `<instance>.<key>.<generation>`: 26 characters of base 32, a dot, at most 52 of the
//! key, a dot, at most 26 of base 32; 106 bytes at most, of which CSI allows 128. It outlives every release: golden
//! tests freeze it. Names of backends and plugins are not in it and may change.

mod base32;
mod digest;
mod instance;
mod key;
mod node;
mod snapshot;
mod volume;

pub use digest::Fingerprint;
pub use instance::{Generation, InstanceId};
pub use key::VolumeKey;
pub use node::NodeId;
pub use snapshot::{GroupSnapshotId, SnapshotId, SnapshotKey};
pub use volume::{ForeignId, VolumeId};
