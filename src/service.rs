//! The five services of CSI: wire in, wire out. Each RPC reads like the spec.
//!
//! GroupController and SnapshotMetadata have no driver behind them yet and are not served: their RPCs answer
//! UNIMPLEMENTED, and no plugin advertises them.

mod call;
mod capabilities;
mod controller;
mod ephemeral;
mod identity;
mod node;

use std::sync::Arc;

use dunnage_csi_proto::csi::v1::controller_server::ControllerServer;
use dunnage_csi_proto::csi::v1::group_controller_server::{GroupController, GroupControllerServer};
use dunnage_csi_proto::csi::v1::identity_server::IdentityServer;
use dunnage_csi_proto::csi::v1::node_server::NodeServer;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::{SnapshotMetadata, SnapshotMetadataServer};
use dunnage_driver_api::{Commands, NodeName};
use tonic::service::Routes;

use crate::mount::Engine;
use crate::operations::Operations;
use crate::registry::Plugin;
use crate::wire::Segment;
use ephemeral::EphemeralMarks;

/// The services of one plugin, with all that a request needs on its way.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

struct Shared {
    plugin: Arc<Plugin>,
    node: NodeName,
    segment: Segment,
    operations: Operations,
    engine: Option<Arc<Engine>>,
    ephemeral: EphemeralMarks,
    commands: Arc<dyn Commands>,
}

/// What the services of all plugins of a process share.
#[derive(Clone)]
pub struct Environment {
    /// The node this process runs on.
    pub node: NodeName,
    /// The table of running operations.
    pub operations: Operations,
    /// The mount engine, where this process serves the node half.
    pub engine: Option<Arc<Engine>>,
    /// The folder of the process's state.
    pub state: std::path::PathBuf,
    /// Runs programs.
    pub commands: Arc<dyn Commands>,
}

impl Services {
    /// The services of a plugin.
    pub fn new(plugin: Arc<Plugin>, environment: &Environment) -> Self {
        let Environment { node, operations, engine, state, commands } = environment.clone();
        let segment = Segment::of(&node);
        let ephemeral = EphemeralMarks::new(&state);
        Self(Arc::new(Shared { plugin, node, segment, operations, engine, ephemeral, commands }))
    }

    /// All five services, as routes of a gRPC server.
    pub fn routes(&self) -> Routes {
        Routes::new(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self.clone()))
            .add_service(NodeServer::new(self.clone()))
            .add_service(GroupControllerServer::new(self.clone()))
            .add_service(SnapshotMetadataServer::new(self.clone()))
    }
}

impl GroupController for Services {}

impl SnapshotMetadata for Services {}
