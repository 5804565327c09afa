//! Wire types to domain types and back, field by field, with every check that the spec asks of a request.
//!
//! Nothing behind this module meets a missing field, a name with control characters, a path that climbs, or a map
//! that is too large to keep. An error here is INVALID_ARGUMENT (or what the spec says instead) and names the field,
//! the value and the remedy.

mod capability;
mod changed_blocks;
mod controller;
mod group;
mod limits;
mod node;
mod page;
mod parameters;
mod snapshot;
mod topology;
mod volume;

pub use capability::{capabilities, capability, capability_to_wire};
pub use changed_blocks::{GetBlocks, get_metadata_allocated, get_metadata_delta, ranges_to_wire};
pub use controller::{
    Attach, Create, Detach, DetachFrom, Expand, GetCapacity, Modify, Validate, attach, create_volume, detach,
    expand_volume, get_capacity, modify_volume, validate,
};
pub use group::{CreateGroup, Group, create_group, group, group_to_wire};
pub(crate) use limits::short;
pub use limits::{VolumeHandle, secrets, volume_handle};
pub use node::{
    EphemeralRequest, ExpandNode, Publish, Stage, Stats, Unpublish, Unstage, expand_node, health, publish, stage,
    stats, unpublish, unstage,
};
pub use page::{Page, Token, page};
pub use parameters::ClassParameters;
pub use snapshot::{
    CreateSnapshot, ListSnapshots, SnapshotHandle, create_snapshot, list_snapshots, snapshot_handle, snapshot_to_wire,
};
pub use topology::{Segment, TOPOLOGY_KEY, Topology, TopologyRequirement};
pub use volume::{usage_to_wire, volume_health_to_wire, volume_to_wire};
