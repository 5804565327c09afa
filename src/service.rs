//! The five services of CSI: wire in, wire out. Each RPC reads like the spec.

mod call;
mod capabilities;
mod controller;
mod ephemeral;
mod group_controller;
mod identity;
mod list;
mod node;
mod snapshot_metadata;
mod snapshots;
mod storage_health;
#[cfg(test)]
mod tests;
mod volume_health;

use std::path::PathBuf;
use std::sync::Arc;

use dunnage_csi_proto::csi::v1::controller_server::ControllerServer;
use dunnage_csi_proto::csi::v1::group_controller_server::GroupControllerServer;
use dunnage_csi_proto::csi::v1::identity_server::IdentityServer;
use dunnage_csi_proto::csi::v1::node_server::NodeServer;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;
use dunnage_csi_proto::csi::v1::{self as csi};
use dunnage_driver_api::{Error, NodeName, Reach, Result, Volume};
use tonic::service::RoutesBuilder;

use crate::config::Mode;
use crate::mount::Engine;
use crate::operations::Operations;
use crate::registry::{Plugin, ServedBackend};
use crate::wire::{self, Segment, TopologyRequirement};
pub use ephemeral::EphemeralMarks;

/// The services of one plugin, with all that a request needs on its way.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

struct Shared {
    plugin: Arc<Plugin>,
    node: NodeName,
    segment: Segment,
    operations: Operations,
    engine: Option<Arc<Engine>>,
    ephemeral: Arc<EphemeralMarks>,
    /// The folder of the plugin's socket.
    folder: PathBuf,
}

/// The full names of the services, for those who ask a socket what it has.
pub const NAMES: [&str; 5] =
    ["csi.v1.Identity", "csi.v1.Controller", "csi.v1.Node", "csi.v1.GroupController", "csi.v1.SnapshotMetadata"];

/// What the services of all plugins of a process share.
#[derive(Clone)]
pub struct Environment {
    /// The node this process runs on.
    pub node: NodeName,
    /// Which half of CSI it serves.
    pub mode: Mode,
    /// The table of running operations.
    pub operations: Operations,
    /// The mount engine, where this process serves the node half.
    pub engine: Option<Arc<Engine>>,
    /// What this node knows of ephemeral volumes.
    pub ephemeral: Arc<EphemeralMarks>,
}

impl Services {
    /// The services of a plugin whose socket lies in `folder`, absolute.
    pub fn new(plugin: Arc<Plugin>, folder: PathBuf, environment: &Environment) -> Self {
        let Environment { node, operations, engine, ephemeral, .. } = environment.clone();
        let segment = Segment::of(&node);
        Self(Arc::new(Shared { plugin, node, segment, operations, engine, ephemeral, folder }))
    }

    /// All five services, as routes of a gRPC server.
    pub fn routes(&self) -> RoutesBuilder {
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self.clone()))
            .add_service(NodeServer::new(self.clone()))
            .add_service(GroupControllerServer::new(self.clone()))
            .add_service(SnapshotMetadataServer::new(self.clone()));
        routes
    }
}

impl Shared {
    /// The mount engine.
    ///
    /// # Errors
    /// Where this process serves the controller half alone; such a plugin offers no RPC that asks for it.
    fn engine(&self) -> Result<&Engine> {
        self.engine.as_deref().ok_or_else(|| Error::internal("this process does not serve the node half"))
    }

    /// Whether a volume of this backend can be made where the request wants it.
    fn reaches(&self, backend: &ServedBackend, requirement: Option<&TopologyRequirement>) -> Result<()> {
        match backend.backend.reach {
            Reach::Node => self.segment.meets(requirement),
            Reach::Everywhere => Ok(()),
        }
    }

    fn volume_to_wire(&self, backend: &ServedBackend, volume: &Volume) -> csi::Volume {
        wire::volume_to_wire(volume, &backend.backend.instance, backend.backend.reach, &self.segment)
    }
}
