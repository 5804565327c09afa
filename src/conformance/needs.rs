//! What a case needs for its rule to apply.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::group_controller_service_capability::rpc::Type as GroupRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;

use super::Kind;
use super::kit::Kit;

/// Something that a plugin, its parameters or this process may lack.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    Service(PluginService),
    Controller(ControllerRpc),
    /// That the controller does not have this.
    Without(ControllerRpc),
    Node(NodeRpc),
    Group(GroupRpc),
    Expansion(Expansion),
    /// A node service, and the rights to use what it publishes.
    Mounts,
    /// Volumes that can be used so.
    Uses(Kind),
    /// Volumes of either kind that can be used by this process.
    Content,
    OtherParameters,
    MutableParameters,
    MountFlags,
    Topology,
    /// That the kit may kill the plugin.
    Start,
}

impl Need {
    /// Why it is not met; nothing where it is.
    pub(super) fn lack(&self, kit: &Kit) -> Option<String> {
        let plugin = kit.plugin();
        let offers = plugin.offers();
        let (met, why) = match self {
            Self::Service(service) => (offers.service(*service), not_advertised(service.as_str_name(), "plugin")),
            Self::Controller(rpc) => (offers.controller(*rpc), not_advertised(rpc.as_str_name(), "controller")),
            Self::Without(rpc) => {
                (!offers.controller(*rpc), format!("the controller has the capability {}", rpc.as_str_name()))
            }
            Self::Node(rpc) => (offers.node(*rpc), not_advertised(rpc.as_str_name(), "node")),
            Self::Group(rpc) => (offers.group(*rpc), not_advertised(rpc.as_str_name(), "group controller")),
            Self::Expansion(kind) => (offers.expansion(*kind), not_advertised(kind.as_str_name(), "volume expansion")),
            Self::Mounts => return no_mounts(kit),
            Self::Uses(kind) => (
                kit.uses(*kind),
                format!("access type {kind} is left out by `access` in --params, or refused by the plugin"),
            ),
            Self::Content => return no_mounts(kit),
            Self::OtherParameters => (!kit.params().other_parameters.is_empty(), not_given("other_parameters")),
            Self::MutableParameters => (!kit.params().mutable_parameters.is_empty(), not_given("mutable_parameters")),
            Self::MountFlags => (!kit.params().mount_flags.is_empty(), not_given("mount_flags")),
            Self::Topology => (kit.topology().is_some(), "the node has no accessible_topology".to_owned()),
            Self::Start => (kit.may_kill(), "the plugin was not started by the kit (--start)".to_owned()),
        };
        (!met).then_some(why)
    }
}

fn not_advertised(capability: &str, who: &str) -> String {
    format!("not advertised: {capability} ({who})")
}

fn not_given(key: &str) -> String {
    format!("{key} is not given in --params")
}

fn no_mounts(kit: &Kit) -> Option<String> {
    if !kit.plugin().offers().serves_node() {
        return Some("there is no node service behind the socket".to_owned());
    }
    let user = rustix::process::geteuid();
    (!user.is_root()).then(|| format!("it needs root to use what is published, and this is user {user}"))
}
