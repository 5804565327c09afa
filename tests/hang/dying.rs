//! A store that stops answering after it was opened.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Fault, Host, MIB, Need, Setup, Volume, can_run, create, get, mount, wait_until};
use dunnage_testkit::FuseStore;
use tonic::{Code, Status};

use crate::{DUNNAGE, live, name, volume};

const SHORT: Duration = Duration::from_secs(3);
/// Ten times what stats and health have.
const BOUND: Duration = Duration::from_secs(20);
/// A call hangs for half a minute before its thread is written off, and a backend is asked as often how it is.
const LIMIT: Duration = Duration::from_secs(300);
/// All the threads that the backend with a fault may have.
const THREADS: usize = 5;

struct Rig {
    store: FuseStore,
    host: Host,
    sick: Client,
    files: Client,
    port: SocketAddr,
}

/// A host with a backend on a store that can fail, and one elsewhere.
fn rig(test: &str) -> Result<Option<Rig>> {
    if !can_run(test, &[Need::Root])? {
        return Ok(None);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let workers = format!("quota: none\nworkers: {{threads: {THREADS}, total: {THREADS}}}");
    let setup = Setup::new()?.backend("sick", "dir", &workers)?.backend("files", "dir", "quota: none")?;
    let mut host = setup
        .set("telemetry", &format!("{{listen: '{port}'}}"))
        .set("drain_seconds", "1")
        .env("RUST_LOG", "debug,h2=info")
        .prepare(DUNNAGE)?;
    let store = FuseStore::mount(&host.setup().root("sick"))?;
    host.init()?;
    host.restart()?;
    let (sick, files) = (host.client(&name("sick"))?, host.client(&name("files"))?);
    live(&host, &sick, "before")?;
    Ok(Some(Rig { store, host, sick, files, port }))
}

impl Rig {
    fn published(&self, name: &str) -> Result<Volume> {
        let volume = volume(&self.host, &self.sick, name)?;
        self.sick.node_publish_volume(volume.publish())?;
        Ok(volume)
    }

    /// How many threads of the sick backend are stuck.
    fn stuck(&self) -> Result<usize> {
        let metrics = get(self.port, "/metrics")?;
        let sample = "dunnage_backend_threads{backend=\"sick\",state=\"stuck\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)).unwrap_or_default();
        Ok(value.parse::<f64>()? as usize)
    }

    fn health(&self) -> Result<String> {
        get(self.port, "/healthz")
    }
}

/// The answer of a call, which must come within the bound of those that only ask.
fn soon<T: std::fmt::Debug>(call: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    let began = Instant::now();
    let answer = call();
    assert!(began.elapsed() < BOUND, "answered after {:?}: {answer:?}", began.elapsed());
    answer
}

/// What the health of the stores behind a plugin says.
fn storage_health(client: &Client) -> Result<String, Status> {
    let found = soon(|| client.node_get_storage_health(Default::default()))?.backend_health;
    Ok(found.into_iter().map(|one| one.message).collect())
}

#[test]
fn a_store_that_falls_silent_holds_its_own_bounded_threads_and_all_goes_on_when_it_answers() -> Result<()> {
    let test = "a_store_that_falls_silent_holds_its_own_bounded_threads_and_all_goes_on_when_it_answers";
    let Some(rig) = rig(test)? else { return Ok(()) };
    let Rig { store, host, sick, files, port } = &rig;
    let (used, idle, asked) = (rig.published("used")?, rig.published("idle")?, rig.published("asked")?);
    store.fall_silent();
    let sick = &sick.under("dir", Fault::SilentStore);
    // It never asks the store: what is published is taken away all the same, also while its statistics hang.
    soon(|| sick.node_get_volume_stats(asked.stats())).expect_err("stats of a silent store");
    sick.node_unpublish_volume(idle.unpublish())?;
    soon(|| sick.node_unpublish_volume(asked.unpublish()))?;
    let hasty = sick.with_deadline(SHORT);
    for key in ["a", "a", "b", "a", "b"] {
        let status = hasty.create_volume(create(key, MIB, mount())).expect_err("it hangs");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    let other = sick.create_volume(create("a", 2 * MIB, mount())).expect_err("another request of that name");
    assert_eq!(other.code(), Code::Aborted, "{other:?}");
    for _ in 0..3 {
        let stats = soon(|| sick.node_get_volume_stats(used.stats())).expect_err("stats of a silent store");
        assert_eq!(stats.code(), Code::DeadlineExceeded, "{stats:?}");
        ensure!(stats.message().contains("may hang"), "{stats:?}");
    }
    let health = storage_health(sick)?;
    ensure!(health.contains("backend sick") && health.contains("may hang"), "{health:?}");
    let request = csi::NodeGetVolumeHealthRequest { volume_id: used.id(), ..Default::default() };
    soon(|| sick.node_get_volume_health(request)).expect_err("the volume cannot be looked at");
    // Nobody else feels it.
    for number in 0..3 {
        live(host, files, &format!("other-{number}"))?;
    }
    ensure!(storage_health(files)?.is_empty(), "a store that answers is reported");
    for page in ["/livez", "/readyz"] {
        ensure!(get(*port, page)?.starts_with("HTTP/1.1 200"), "{page}: a silent store is no reason to restart");
    }
    wait_until("all threads to be stuck", LIMIT, || {
        let stuck = rig.stuck()?;
        ensure!(stuck <= THREADS, "{stuck} threads are stuck");
        Ok(stuck == THREADS)
    })?;
    // However often it was called, each volume has one of them.
    let log = host.log();
    let hanging = log.lines().filter(|line| line.contains("its thread is written off"));
    let volumes: Vec<_> = hanging.filter_map(|line| line.split_once("volume=").map(|(_, volume)| volume)).collect();
    for volume in ["\"a\"", "\"b\"", "\"used\""] {
        let count = volumes.iter().filter(|line| line.starts_with(volume)).count();
        ensure!(count == 1, "{count} threads hang for {volume}: {volumes:?}");
    }
    ensure!(store.held() <= THREADS + 2, "{} requests hang in the store", store.held());
    // Whatever would need a thread is refused at once, and what runs keeps its key.
    let refused = soon(|| sick.create_volume(create("new", MIB, mount()))).expect_err("there is no thread for it");
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    ensure!(refused.message().contains("threads it may have hang"), "{refused:?}");
    let other = soon(|| sick.create_volume(create("a", 2 * MIB, mount()))).expect_err("the key is held");
    assert_eq!(other.code(), Code::Aborted, "{other:?}");
    ensure!(storage_health(sick)?.contains("backend sick"), "the health of a stuck store is good");
    wait_until("the health to be bad", LIMIT, || Ok(rig.health()?.starts_with("HTTP/1.1 503")))?;
    ensure!(rig.health()?.contains("\"backend\":\"sick\",\"healthy\":false"), "{}", rig.health()?);
    ensure!(rig.health()?.contains("\"backend\":\"files\",\"healthy\":true"), "{}", rig.health()?);
    live(host, files, "still")?;

    store.answer();
    let first = sick.create_volume(create("a", MIB, mount()))?;
    assert_eq!(sick.create_volume(create("a", MIB, mount()))?, first);
    wait_until("no thread to be stuck", LIMIT, || Ok(rig.stuck()? == 0))?;
    ensure!(storage_health(sick)?.is_empty(), "{:?}", storage_health(sick)?);
    sick.node_get_volume_stats(used.stats())?;
    sick.node_unpublish_volume(used.unpublish())?;
    live(host, sick, "after")?;
    let entries = sick.list_volumes(Default::default())?.entries.into_iter();
    let there: BTreeSet<_> = entries.map(|entry| entry.volume.unwrap().volume_id).collect();
    ensure!(there.len() == 5, "there are {there:?}, not a, asked, b, idle and used");
    wait_until("the health to be good", LIMIT, || Ok(rig.health()?.starts_with("HTTP/1.1 200")))
}

#[test]
fn a_volume_in_use_is_not_taken_away_while_its_server_answers() -> Result<()> {
    let test = "a_volume_in_use_is_not_taken_away_while_its_server_answers";
    let Some(rig) = rig(test)? else { return Ok(()) };
    let used = rig.published("used")?;
    let mut file = std::fs::File::create(used.target.join("data"))?;
    let sick = rig.sick.under("dir", Fault::InUse);
    let refused = soon(|| sick.node_unpublish_volume(used.unpublish())).expect_err("a file is open in it");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    ensure!(refused.message().contains("is in use"), "{refused:?}");
    file.write_all(b"data")?;
    assert_eq!(std::fs::read_to_string(used.target.join("data"))?, "data");
    drop(file);
    rig.sick.node_unpublish_volume(used.unpublish())?;
    ensure!(!used.target.exists(), "the target is left");
    Ok(())
}

#[test]
fn a_store_whose_server_dies_gives_every_call_its_error_and_its_volumes_are_back_with_it() -> Result<()> {
    let test = "a_store_whose_server_dies_gives_every_call_its_error_and_its_volumes_are_back_with_it";
    let Some(mut rig) = rig(test)? else { return Ok(()) };
    let used = rig.published("used")?;
    std::fs::write(used.target.join("data"), "data")?;
    rig.store.fall_silent();
    let hang = rig.sick.with_deadline(SHORT).create_volume(create("a", MIB, mount())).expect_err("it hangs");
    assert_eq!(hang.code(), Code::DeadlineExceeded, "{hang:?}");
    soon(|| rig.sick.node_get_volume_stats(used.stats())).expect_err("stats of a silent store");
    rig.store.disconnect();
    rig.sick = rig.sick.under("dir", Fault::StoreGone);
    // The work has really ended, with an error, and another one may have its key.
    wait_until("the create to end", LIMIT, || {
        let status = rig.sick.create_volume(create("a", 2 * MIB, mount())).expect_err("made on a dead store");
        Ok(status.code() == Code::Internal && status.message().contains("not connected"))
    })?;
    wait_until("the stats to be refused", LIMIT, || {
        let status = soon(|| rig.sick.node_get_volume_stats(used.stats())).expect_err("stats of a dead store");
        Ok(status.code() != Code::DeadlineExceeded)
    })?;
    let health = storage_health(&rig.sick)?;
    ensure!(health.contains("backend sick") && health.contains("not connected"), "{health:?}");
    live(&rig.host, &rig.files, "other")?;
    wait_until("the health to be bad", LIMIT, || Ok(rig.health()?.starts_with("HTTP/1.1 503")))?;
    ensure!(rig.health()?.contains("\"backend\":\"sick\",\"healthy\":false"), "{}", rig.health()?);
    for page in ["/livez", "/readyz"] {
        ensure!(get(rig.port, page)?.starts_with("HTTP/1.1 200"), "{page}: a dead store is no reason to restart");
    }
    rig.sick.node_unpublish_volume(used.unpublish())?;
    ensure!(!used.target.exists(), "the target is left");
    rig.store.reconnect()?;
    rig.host.restart()?;
    let sick = rig.host.client(&name("sick"))?;
    sick.node_publish_volume(used.publish())?;
    assert_eq!(std::fs::read_to_string(used.target.join("data"))?, "data");
    sick.create_volume(create("a", MIB, mount()))?;
    Ok(())
}

#[test]
fn a_store_that_hangs_is_reported_without_those_that_share_its_name() -> Result<()> {
    if !can_run("a_store_that_hangs_is_reported_without_those_that_share_its_name", &[Need::Root])? {
        return Ok(());
    }
    // Whichever is asked first.
    let names = ["sick", "one", "two", "three", "four"];
    let mut setup = Setup::new()?.plugin("all.example.com", &names);
    for backend in names {
        setup = setup.backend(backend, "dir", "quota: none")?;
    }
    let mut host = setup.prepare(DUNNAGE)?;
    let store = FuseStore::mount(&host.setup().root("sick"))?;
    host.init()?;
    host.restart()?;
    let client = host.client("all.example.com")?;
    ensure!(storage_health(&client)?.is_empty(), "a store that answers is reported");
    store.fall_silent();
    let health = storage_health(&client)?;
    ensure!(health.starts_with("backend sick") && !health.contains("; backend"), "{health:?}");
    store.answer();
    wait_until("the store to be well", LIMIT, || Ok(storage_health(&client)?.is_empty()))
}
