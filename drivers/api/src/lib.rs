//! The contract between the Dunnage host and a storage driver.
//!
//! A [`Driver`] is a configuration type that opens a [`Backend`]: an instance with its abilities as trait objects. What
//! a backend hands out is what its plugin advertises. The traits are synchronous and small; the host calls them on the
//! backend's own threads with a [`Context`], parses and checks every request before, locks what a call touches, and
//! makes the answers. A driver says only how its storage makes, finds, lists, grows and removes a volume, and what
//! [`Source`] a node gets of it.
//!
//! A driver that makes other drivers' devices usable on other nodes implements [`Carry`].
//!
//! The least driver implements [`Driver`], [`Volumes`], [`Create`] and [`Node`]. A store that is a folder gets its
//! marker, its records and its trash from [`root`].

mod attach;
mod boot;
mod capability;
mod capacity;
mod carry;
mod changed_blocks;
mod command;
mod context;
mod controller;
mod copying;
mod device_size;
mod driver;
mod error;
mod finding;
mod health;
mod id;
mod key;
mod mkfs;
mod name;
mod node;
mod overcommit;
mod parameters;
mod path;
mod permissions;
mod questions;
pub mod root;
mod secrets;
mod snapshot;
mod still;
mod text;
mod volume;

pub use attach::{Attach, Attachment};
pub use boot::boot_id;
pub use capability::{Access, AccessMode, FsType, MountAccess, VolumeCapability};
pub use capacity::{Bytes, CapacityRange};
pub use carry::{Carry, Export, ExportId, Exports, Target};
pub use changed_blocks::{BlockRanges, ChangedBlocks};
pub use command::{Command, Commands, Output, System, Tool};
pub use context::Context;
pub use controller::{Create, Expand, Groups, Health, Modify, Room, Snapshots, Volumes};
pub use copying::{CopyProgress, Copying, TargetKey};
pub use driver::{Backend, Configure, Configured, Driver, DriverEntry, Init, Opening, Reach, Role};
pub use error::{Error, ErrorKind, Result};
pub use finding::{Claim, Finding, Severity};
pub use health::{HealthFinding, HealthStatus};
pub use id::{
    Fingerprint, ForeignId, Generation, GroupSnapshotId, InstanceId, NodeId, SnapshotId, SnapshotKey, VolumeId,
    VolumeKey,
};
pub use key::{KeyError, read_keys};
pub use name::{BackendName, NodeName};
pub use node::{
    DeviceSource, DirectoryParent, DirectorySource, Identity, MountSource, Mounts, Node, OwnMount, ReleaseRecord,
    Source, SourceRequest, Staging, VolumeUsage,
};
pub use overcommit::Overcommit;
pub use parameters::{NoParameters, ParameterType, Parameters};
pub use path::{StagingPath, TargetPath};
pub use permissions::Permissions;
pub use questions::Questions;
pub use secrets::Secrets;
pub use snapshot::{ContentSource, CreateGroupSnapshot, CreateSnapshot, GroupSnapshot, Snapshot, SourceId};
pub use still::{Held, HoldStill, InUse, NotInUse, Unknown};
pub use volume::{Capacity, ClaimNames, CreateVolume, Expanded, Total, Volume};
