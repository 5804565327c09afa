//! What a plugin advertises.

use std::collections::{HashMap, HashSet};

use dunnage_csi_proto::csi::v1::controller_service_capability::{self, rpc::Type as ControllerRpc};
use dunnage_csi_proto::csi::v1::group_controller_service_capability::{self, rpc::Type as GroupRpc};
use dunnage_csi_proto::csi::v1::node_service_capability::{self, rpc::Type as NodeRpc};
use dunnage_csi_proto::csi::v1::plugin_capability::{
    self, service::Type as PluginService, volume_expansion::Type as Expansion,
};
use dunnage_csi_proto::csi::v1::{
    ControllerServiceCapability, GroupControllerServiceCapability, NodeServiceCapability, PluginCapability, Topology,
};

/// A plugin's name, its node, and the capabilities of its three services.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// The CSI name.
    pub name: String,
    /// What the plugin says of itself: ours names the backend of each instance.
    pub manifest: HashMap<String, String>,
    /// The version that the vendor gives.
    pub version: String,
    /// The node's id, empty where there is no node service.
    pub node_id: String,
    /// Where the node is, where the plugin has accessibility constraints.
    pub topology: Option<Topology>,
    pub(crate) controller: HashSet<ControllerRpc>,
    pub(crate) node: HashSet<NodeRpc>,
    pub(crate) group: HashSet<GroupRpc>,
    pub(crate) services: HashSet<PluginService>,
    pub(crate) expansion: HashSet<Expansion>,
    pub(crate) serves_node: bool,
}

impl Offers {
    /// Whether the controller has this capability.
    pub fn controller(&self, capability: ControllerRpc) -> bool {
        self.controller.contains(&capability)
    }

    /// Whether the node has this capability.
    pub fn node(&self, capability: NodeRpc) -> bool {
        self.node.contains(&capability)
    }

    /// Whether volumes are staged before they are published.
    pub fn stages(&self) -> bool {
        self.node(NodeRpc::StageUnstageVolume)
    }

    /// Whether volumes are attached to a node by the controller first.
    pub fn attaches(&self) -> bool {
        self.controller(ControllerRpc::PublishUnpublishVolume)
    }

    /// Whether volumes grow by the controller.
    pub fn expands(&self) -> bool {
        self.controller(ControllerRpc::ExpandVolume)
    }

    /// Whether the plugin has a controller service that makes volumes.
    pub fn creates(&self) -> bool {
        self.controller(ControllerRpc::CreateDeleteVolume)
    }

    /// Whether the plugin has this service, or this constraint.
    pub fn service(&self, service: PluginService) -> bool {
        self.services.contains(&service)
    }

    /// Whether the group controller has this capability.
    pub fn group(&self, capability: GroupRpc) -> bool {
        self.group.contains(&capability)
    }

    /// Whether volumes can be expanded in this way.
    pub fn expansion(&self, kind: Expansion) -> bool {
        self.expansion.contains(&kind)
    }

    /// Whether there is a node service behind the socket.
    pub fn serves_node(&self) -> bool {
        self.serves_node
    }

    pub(crate) fn take_group(&mut self, capabilities: Vec<GroupControllerServiceCapability>) {
        self.group = capabilities
            .into_iter()
            .filter_map(|capability| capability.r#type)
            .map(|group_controller_service_capability::Type::Rpc(rpc)| rpc.r#type())
            .collect();
    }

    pub(crate) fn take_services(&mut self, capabilities: Vec<PluginCapability>) {
        self.expansion = capabilities
            .iter()
            .filter_map(|capability| match &capability.r#type {
                Some(plugin_capability::Type::VolumeExpansion(expansion)) => Some(expansion.r#type()),
                _ => None,
            })
            .collect();
        self.services = capabilities
            .into_iter()
            .filter_map(|capability| match capability.r#type {
                Some(plugin_capability::Type::Service(service)) => Some(service.r#type()),
                _ => None,
            })
            .collect();
    }

    pub(crate) fn take_controller(&mut self, capabilities: Vec<ControllerServiceCapability>) {
        self.controller = capabilities
            .into_iter()
            .filter_map(|capability| capability.r#type)
            .map(|controller_service_capability::Type::Rpc(rpc)| rpc.r#type())
            .collect();
    }

    pub(crate) fn take_node(&mut self, capabilities: Vec<NodeServiceCapability>) {
        self.node = capabilities
            .into_iter()
            .filter_map(|capability| capability.r#type)
            .map(|node_service_capability::Type::Rpc(rpc)| rpc.r#type())
            .collect();
    }
}
