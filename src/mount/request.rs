//! What the engine is asked, already checked and typed.

use std::collections::BTreeMap;

use dunnage_driver_api::{
    Context, Node, Reach, ReleaseRecord, Result, StagingPath, TargetPath, VolumeCapability, VolumeId,
};

/// How a driver undoes a source, from its record alone: [`Driver::release`](dunnage_driver_api::Driver::release).
pub type Release<'a> = &'a dyn Fn(&Context, &ReleaseRecord) -> Result<()>;

/// The node half of a backend, as the engine asks it.
#[derive(Clone, Copy)]
pub struct NodeHalf<'a> {
    /// Brings its volumes.
    pub node: &'a dyn Node,
    /// From where they can be used: what other nodes can reach is not this node's alone.
    pub reach: Reach,
}

/// A checked NodeStageVolume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StageVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is staged.
    pub staging_path: StagingPath,
    /// How it is to be used.
    pub capability: VolumeCapability,
    /// What CreateVolume answered; may be empty.
    pub volume_context: BTreeMap<String, String>,
    /// What ControllerPublishVolume answered; may be empty.
    pub publish_context: BTreeMap<String, String>,
}

/// A checked NodePublishVolume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublishVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Where it was staged; `None` where the request does not say.
    pub staging_path: Option<StagingPath>,
    /// Where the workload will find it.
    pub target_path: TargetPath,
    /// How it is to be used.
    pub capability: VolumeCapability,
    /// Whether this target may not be written to, whatever the access mode says.
    pub readonly: bool,
    /// What CreateVolume answered; may be empty.
    pub volume_context: BTreeMap<String, String>,
    /// What ControllerPublishVolume answered; may be empty.
    pub publish_context: BTreeMap<String, String>,
}
