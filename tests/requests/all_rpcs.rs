//! Every RPC of CSI 1.13 is advertised and answers, or is not and says so.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1::{controller_service_capability, node_service_capability};
use dunnage_test_common::Client;
use tonic::Code;

use crate::rig;

/// An RPC, the capability without which it must not be there, and the code of its answer to an empty request.
type Called = (&'static str, &'static str, Code);

/// Needs no capability of its own.
const ALWAYS: &str = "";
/// Belongs to a service that no plugin here has.
const NEVER: &str = "never";

/// Calls all 36.
fn all(client: &Client) -> [Called; 36] {
    macro_rules! call {
        ($($rpc:ident $capability:expr,)*) => {
            [$((stringify!($rpc), $capability, client.$rpc(Default::default()).err().map_or(Code::Ok, |e| e.code()))),*]
        };
    }
    call![
        get_plugin_info ALWAYS,
        get_plugin_capabilities ALWAYS,
        probe ALWAYS,
        create_volume "controller CREATE_DELETE_VOLUME",
        delete_volume "controller CREATE_DELETE_VOLUME",
        controller_publish_volume "controller PUBLISH_UNPUBLISH_VOLUME",
        controller_unpublish_volume "controller PUBLISH_UNPUBLISH_VOLUME",
        validate_volume_capabilities ALWAYS,
        list_volumes "controller LIST_VOLUMES",
        controller_list_volume_health "controller LIST_VOLUME_HEALTH",
        controller_get_volume_health "controller GET_VOLUME_HEALTH",
        get_capacity "controller GET_CAPACITY",
        controller_get_capabilities ALWAYS,
        create_snapshot "controller CREATE_DELETE_SNAPSHOT",
        delete_snapshot "controller CREATE_DELETE_SNAPSHOT",
        list_snapshots "controller LIST_SNAPSHOTS",
        get_snapshot "controller GET_SNAPSHOT",
        controller_expand_volume "controller EXPAND_VOLUME",
        controller_get_volume "controller GET_VOLUME",
        controller_modify_volume "controller MODIFY_VOLUME",
        group_controller_get_capabilities NEVER,
        create_volume_group_snapshot NEVER,
        delete_volume_group_snapshot NEVER,
        get_volume_group_snapshot NEVER,
        get_metadata_allocated NEVER,
        get_metadata_delta NEVER,
        node_stage_volume "node STAGE_UNSTAGE_VOLUME",
        node_unstage_volume "node STAGE_UNSTAGE_VOLUME",
        node_publish_volume ALWAYS,
        node_unpublish_volume ALWAYS,
        node_get_volume_stats "node GET_VOLUME_STATS",
        node_get_volume_health "node GET_VOLUME_HEALTH",
        node_get_storage_health "node GET_STORAGE_HEALTH",
        node_expand_volume "node EXPAND_VOLUME",
        node_get_capabilities ALWAYS,
        node_get_info ALWAYS,
    ]
}

fn advertised(client: &Client) -> Result<BTreeSet<String>> {
    use controller_service_capability::Type::Rpc as Controller;
    use node_service_capability::Type::Rpc as Node;
    let controller = client.controller_get_capabilities(Default::default())?.capabilities.into_iter();
    let controller = controller.filter_map(|one| one.r#type).map(|Controller(rpc)| rpc.r#type().as_str_name());
    let node = client.node_get_capabilities(Default::default())?.capabilities.into_iter();
    let node = node.filter_map(|one| one.r#type).map(|Node(rpc)| rpc.r#type().as_str_name());
    Ok(controller.map(|name| format!("controller {name}")).chain(node.map(|name| format!("node {name}"))).collect())
}

#[test]
fn every_rpc_is_advertised_or_unimplemented() -> Result<()> {
    let Some(rig) = rig("every_rpc_is_advertised_or_unimplemented")? else { return Ok(()) };
    for (name, client) in [("dir", &rig.files), ("image", &rig.disks)] {
        let advertised = advertised(client)?;
        ensure!(!advertised.is_empty(), "{name} advertises nothing");
        for (rpc, capability, code) in all(client) {
            let there = capability == ALWAYS || advertised.contains(capability);
            ensure!(there == (code != Code::Unimplemented), "{name}: {rpc} is {code:?}, {advertised:?} are advertised");
        }
    }
    Ok(())
}
