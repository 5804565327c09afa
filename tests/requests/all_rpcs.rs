//! Every RPC of CSI 1.13 is advertised and answers, or is not and says so.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1::{controller_service_capability, node_service_capability, plugin_capability};
use dunnage_test_common::{Client, Need, Setup, can_run, mount_new};
use tonic::Code;

use crate::{DUNNAGE, IMAGE, rig};

/// An RPC, the capability without which it must not be there, and the code of its answer to an empty request.
type Called = (&'static str, &'static str, Code);

/// Needs no capability of its own.
const ALWAYS: &str = "";
/// The capability of a service that a plugin may have.
const GROUPS: &str = "plugin GROUP_CONTROLLER_SERVICE";
const METADATA: &str = "plugin SNAPSHOT_METADATA_SERVICE";

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
        group_controller_get_capabilities GROUPS,
        create_volume_group_snapshot GROUPS,
        delete_volume_group_snapshot GROUPS,
        get_volume_group_snapshot GROUPS,
        get_metadata_allocated METADATA,
        get_metadata_delta METADATA,
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
    let plugin = client.get_plugin_capabilities(Default::default())?.capabilities.into_iter();
    let plugin = plugin.filter_map(|one| match one.r#type {
        Some(plugin_capability::Type::Service(service)) => Some(service.r#type().as_str_name()),
        _ => None,
    });
    let names = controller.map(|name| format!("controller {name}")).chain(node.map(|name| format!("node {name}")));
    Ok(names.chain(plugin.map(|name| format!("plugin {name}"))).collect())
}

#[test]
fn every_rpc_is_advertised_or_unimplemented() -> Result<()> {
    let Some(rig) = rig("every_rpc_is_advertised_or_unimplemented")? else { return Ok(()) };
    for (name, client) in [("dir", &rig.files), ("image", &rig.disks)] {
        let advertised = compare(name, client)?;
        ensure!(!advertised.contains(METADATA), "{name} has files that share no blocks");
    }
    Ok(())
}

#[test]
fn where_files_share_blocks_more_rpcs_are_advertised() -> Result<()> {
    let test = "where_files_share_blocks_more_rpcs_are_advertised";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("disks", "image", "")?;
    mount_new(&setup.scratch().path().join("disk"), 512, &setup.root("disks"), &["mkfs.xfs", "-q"], "loop")?;
    let advertised = compare("image on XFS", &setup.start(DUNNAGE)?.client(IMAGE)?)?;
    ensure!(advertised.contains(METADATA) && advertised.contains(GROUPS), "{advertised:?}");
    Ok(())
}

/// Whether each RPC is there if it is advertised, and only then.
fn compare(name: &str, client: &Client) -> Result<BTreeSet<String>> {
    let advertised = advertised(client)?;
    ensure!(!advertised.is_empty(), "{name} advertises nothing");
    for (rpc, capability, code) in all(client) {
        let there = capability == ALWAYS || advertised.contains(capability);
        ensure!(there == (code != Code::Unimplemented), "{name}: {rpc} is {code:?}, {advertised:?} are advertised");
    }
    Ok(advertised)
}
