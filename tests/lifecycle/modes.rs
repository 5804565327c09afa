//! Which half a process serves, where a backend is, and where the socket lies.

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::plugin_capability::{Type, service};
use dunnage_test_common::{Client, MIB, Need, Setup, Volume, can_run, create, mount, wait_until};
use tonic::Code;

use crate::{DIR, DUNNAGE, is};

fn has_controller(client: &Client) -> Result<bool> {
    let capabilities = client.get_plugin_capabilities(Default::default())?.capabilities;
    Ok(capabilities
        .iter()
        .any(|one| matches!(&one.r#type, Some(Type::Service(one)) if one.r#type() == service::Type::ControllerService)))
}

#[test]
fn each_half_alone_serves_its_own_rpcs() -> Result<()> {
    if !can_run("each_half_alone_serves_its_own_rpcs", &[Need::Root])? {
        return Ok(());
    }
    let controller = Setup::new()?.backend("files", "dir", "quota: none")?.set("mode", "controller").start(DUNNAGE)?;
    let client = controller.client(DIR)?;
    ensure!(has_controller(&client)?, "a controller without its service");
    let made = client.create_volume(create("a", MIB, mount()))?.volume.expect("no volume");
    let volume = Volume::new(made, mount(), &controller.setup().scratch().path().join("pods"), false);
    is("publish", client.node_publish_volume(volume.publish()), Code::Unimplemented)?;
    is("info", client.node_get_info(Default::default()), Code::Unimplemented)?;

    let node = Setup::new()?.backend("files", "dir", "quota: none")?.set("mode", "node").start(DUNNAGE)?;
    let client = node.client(DIR)?;
    ensure!(!has_controller(&client)?, "a node with the controller service");
    is("create", client.create_volume(create("a", MIB, mount())), Code::Unimplemented)?;
    is("list", client.list_volumes(csi::ListVolumesRequest::default()), Code::Unimplemented)?;
    ensure!(client.node_get_info(Default::default())?.node_id.starts_with("node-7."));
    Ok(())
}

#[test]
fn a_backend_of_other_nodes_has_no_socket_here() -> Result<()> {
    if !can_run("a_backend_of_other_nodes_has_no_socket_here", &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("files", "dir", "quota: none\nnodes: [node-7, node-8]")?;
    let mut host = setup.backend("other", "dir", "quota: none\nnodes: [node-8]")?.prepare(DUNNAGE)?;
    host.init()?;
    host.spawn()?;
    host.wait_for(DIR)?;
    ensure!(!host.setup().socket("other.csi.dunnage.dev").exists(), "it is on another node");
    Ok(())
}

#[test]
fn csi_endpoint_says_where_the_socket_of_a_single_plugin_is() -> Result<()> {
    if !can_run("csi_endpoint_says_where_the_socket_of_a_single_plugin_is", &[Need::Root])? {
        return Ok(());
    }
    for prefix in ["unix://", "unix:", ""] {
        let setup = Setup::new()?.backend("files", "dir", "quota: none")?;
        let socket = setup.scratch().path().join("csi.sock");
        let endpoint = format!("{prefix}{}", socket.display());
        let mut host = setup.env("CSI_ENDPOINT", endpoint).prepare(DUNNAGE)?;
        host.init()?;
        host.spawn()?;
        wait_until("the socket", std::time::Duration::from_secs(60), || Ok(Client::connect(&socket).is_ok()))?;
        assert_eq!(Client::connect(&socket)?.get_plugin_info(Default::default())?.name, DIR);
        ensure!(!host.setup().socket(DIR).exists(), "there are two sockets");
    }
    Ok(())
}

/// As an orchestrator does that knows neither stage nor probe: create, publish, unpublish, delete.
#[test]
fn a_life_without_staging_makes_all_folders_itself() -> Result<()> {
    if !can_run("a_life_without_staging_makes_all_folders_itself", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)?;
    let client = host.client(DIR)?;
    let made = client.create_volume(create("a", MIB, mount()))?.volume.expect("no volume");
    let mut volume = Volume::new(made, mount(), host.setup().scratch().path(), false);
    volume.target = host.setup().scratch().path().join("data/published").join(volume.id());
    for _ in 0..3 {
        client.node_publish_volume(volume.publish())?;
    }
    std::fs::write(volume.target.join("data"), "data")?;
    client.node_unpublish_volume(volume.unpublish())?;
    client
        .node_unpublish_volume(csi::NodeUnpublishVolumeRequest { volume_id: "swarm-1".into(), ..volume.unpublish() })?;
    client.delete_volume(volume.delete())?;
    Ok(())
}
