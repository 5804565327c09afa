//! Backends behind a shared name that open late.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Need, Setup, can_run, create, get, mount, wait_until};
use tonic::{Code, Status};

use crate::DUNNAGE;

const SHARED: &str = "all.example.com";
const LIMIT: Duration = Duration::from_secs(120);

/// A host with two backends behind one name, the second of which is not marked yet.
fn rig(first: &str, second: &str) -> Result<(Host, SocketAddr)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let rest = |driver: &str| if driver == "dir" { "quota: none" } else { "" };
    let setup = Setup::new()?.backend("early", first, rest(first))?.backend("late", second, rest(second))?;
    let setup = setup.plugin(SHARED, &["early", "late"]).set("telemetry", &format!("{{listen: '{port}'}}"));
    let mut host = setup.prepare(DUNNAGE)?;
    ensure!(host.run(&["init", "early"])?.status.success());
    host.spawn()?;
    host.wait_for_log("it is tried again backend=late")?;
    Ok((host, port))
}

fn create_on(client: &Client, backend: &str) -> Result<csi::Volume, Status> {
    let parameters = [("backend".into(), backend.into())].into();
    let request = csi::CreateVolumeRequest { parameters, ..create(backend, 16 * MIB, mount()) };
    client.create_volume(request).map(|made| made.volume.expect("no volume"))
}

/// The backends that the plugin says it has.
fn served(client: &Client) -> Result<Vec<String>> {
    let manifest = client.get_plugin_info(Default::default())?.manifest;
    let mut names: Vec<_> =
        manifest.into_iter().filter(|(key, _)| !key.ends_with(" loses")).map(|(_, name)| name).collect();
    names.sort();
    Ok(names)
}

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root])
}

#[test]
fn a_shared_plugin_waits_a_while_for_a_backend_and_offers_what_all_of_them_have() -> Result<()> {
    if !can("a_shared_plugin_waits_a_while_for_a_backend_and_offers_what_all_of_them_have")? {
        return Ok(());
    }
    // Without the second one it would not want volumes staged.
    let (mut host, port) = rig("dir", "image")?;
    ensure!(!host.socket(SHARED).exists(), "it is served without its second backend");
    ensure!(get(port, "/readyz")?.contains(SHARED), "it is ready");
    host.init()?;
    host.wait_for(SHARED)?;
    let client = host.client(SHARED)?;
    assert_eq!(served(&client)?, ["early", "late"]);
    let capabilities = client.node_get_capabilities(Default::default())?.capabilities;
    use csi::node_service_capability::{Type, rpc::Type as Rpc};
    ensure!(
        capabilities
            .iter()
            .any(|one| matches!(&one.r#type, Some(Type::Rpc(one)) if one.r#type() == Rpc::StageUnstageVolume)),
        "the need of the late backend is not announced: {capabilities:?}"
    );
    create_on(&client, "early")?;
    create_on(&client, "late")?;
    Ok(())
}

#[test]
fn a_backend_that_opens_after_its_plugin_is_served_joins_where_it_has_what_is_offered() -> Result<()> {
    if !can("a_backend_that_opens_after_its_plugin_is_served_joins_where_it_has_what_is_offered")? {
        return Ok(());
    }
    let (mut host, port) = rig("dir", "dir")?;
    host.wait_for(SHARED)?;
    let client = host.client(SHARED)?;
    assert_eq!(served(&client)?, ["early"]);
    create_on(&client, "early")?;
    let status = create_on(&client, "late").expect_err("it is not open");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    ensure!(get(port, "/readyz")?.starts_with("HTTP/1.1 200"), "it is not ready");
    ensure!(get(port, "/healthz")?.contains("\"backend\":\"late\",\"healthy\":false"), "{}", get(port, "/healthz")?);
    host.init()?;
    wait_until("the late backend to join", LIMIT, || Ok(served(&client)?.len() == 2))?;
    create_on(&client, "late")?;
    assert_eq!(client.list_volumes(Default::default())?.entries.len(), 2);
    wait_until("the health to be good", LIMIT, || Ok(get(port, "/healthz")?.starts_with("HTTP/1.1 200")))
}

#[test]
fn a_late_backend_that_lacks_what_is_offered_is_reported_for_as_long_as_it_waits_for_a_restart() -> Result<()> {
    if !can("a_late_backend_that_lacks_what_is_offered_is_reported_for_as_long_as_it_waits_for_a_restart")? {
        return Ok(());
    }
    let (mut host, port) = rig("dir", "image")?;
    host.wait_for(SHARED)?;
    let client = host.client(SHARED)?;
    host.init()?;
    host.wait_for_log("restart to serve both")?;
    // It is open, and is looked after; what is found there does not take the report back.
    let metrics = || get(port, "/metrics");
    wait_until("the late backend to be looked at", LIMIT, || {
        Ok(metrics()?.contains("dunnage_volumes{backend=\"late\"}"))
    })?;
    let health = get(port, "/healthz")?;
    ensure!(health.starts_with("HTTP/1.1 503") && health.contains("restart to serve both"), "{health}");
    assert_eq!(served(&client)?, ["early"]);
    let status = create_on(&client, "late").expect_err("it lacks what is offered");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    create_on(&client, "early")?;
    host.restart()?;
    let client = host.client(SHARED)?;
    wait_until("both to be served", LIMIT, || Ok(served(&client).context("no answer")?.len() == 2))?;
    create_on(&client, "late")?;
    wait_until("the health to be good", LIMIT, || Ok(get(port, "/healthz")?.starts_with("HTTP/1.1 200")))
}
