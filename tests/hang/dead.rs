//! File systems whose server is dead.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, Need, Setup, can_run, get, wait_until};
use dunnage_testkit::FuseStore;
use tonic::Code;

use crate::{DUNNAGE, live, name, volume};

/// Ten times what is promised.
const STATS: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_backend_that_is_dead_from_the_start_is_named_and_the_others_are_served() -> Result<()> {
    if !can_run("a_backend_that_is_dead_from_the_start_is_named_and_the_others_are_served", &[Need::Root])? {
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let setup = Setup::new()?.backend("wedged", "dir", "quota: none")?.backend("files", "dir", "quota: none")?;
    let setup = setup.set("telemetry", &format!("{{listen: '{port}'}}")).set("drain_seconds", "1");
    let mut host = setup.prepare(DUNNAGE)?;
    host.init()?;
    let dead = FuseStore::mount(&host.setup().root("wedged"))?;
    dead.fall_silent();
    host.spawn()?;
    host.wait_for(&name("files"))?;
    let client = host.client(&name("files"))?;
    for life in 0..3 {
        live(&host, &client, &format!("life-{life}"))?;
    }
    let health = get(port, "/healthz")?;
    ensure!(health.starts_with("HTTP/1.1 503") && health.contains("wedged"), "{health}");
    ensure!(get(port, "/livez")?.starts_with("HTTP/1.1 200"), "a dead store is no reason to restart");
    let ready = get(port, "/readyz")?;
    ensure!(ready.contains("wedged"), "{ready}");
    ensure!(get(port, "/metrics")?.contains("files"), "no metrics");
    ensure!(!host.socket(&name("wedged")).exists(), "it has a socket and cannot answer");
    // Once the server is back, so is the backend.
    dead.release()?;
    host.wait_for(&name("wedged"))?;
    live(&host, &host.client(&name("wedged"))?, "back")?;
    wait_until("the health to be good", LIMIT, || Ok(get(port, "/healthz")?.starts_with("HTTP/1.1 200")))
}

#[test]
fn stats_of_a_volume_behind_a_dead_server_are_answered_in_time() -> Result<()> {
    if !can_run("stats_of_a_volume_behind_a_dead_server_are_answered_in_time", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)?;
    let client = host.client(&name("files"))?;
    let hung = volume(&host, &client, "hung")?;
    client.node_publish_volume(hung.publish())?;
    let dead = FuseStore::mount(hung.target.parent().unwrap())?;
    dead.fall_silent();
    for _ in 0..2 {
        let began = Instant::now();
        let client = client.under("dir", Fault::SilentStore);
        let status = client.node_get_volume_stats(hung.stats()).expect_err("stats of the dead");
        ensure!(began.elapsed() < STATS, "answered after {:?}", began.elapsed());
        ensure!(matches!(status.code(), Code::DeadlineExceeded | Code::Aborted), "{status:?}");
    }
    // More than the backend has threads for: one volume has one.
    live(&host, &client, "other")?;
    dead.release()?;
    wait_until("the stats to be back", LIMIT, || Ok(client.node_get_volume_stats(hung.stats()).is_ok()))?;
    client.node_unpublish_volume(hung.unpublish())?;
    ensure!(fs::read_dir(hung.target.parent().unwrap())?.count() == 0, "the target is left");
    Ok(())
}
