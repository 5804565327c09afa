//! The end of the host while a program that it runs is at work: mkfs, which here waits until a test lets it go on.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::NodeStageVolumeResponse;
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Setup, Volume, can_run, create, mount, mounts_beneath, wait_until,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tonic::Status;

use crate::formatting::SlowMkfs;
use crate::life::DUNNAGE;

const LIMIT: Duration = Duration::from_secs(60);
const PLUGIN: &str = "a.csi.dunnage.dev";

/// A host whose mkfs.ext4 waits, and a volume that is to be staged.
struct Slow {
    host: Host,
    volume: Volume,
    mkfs: SlowMkfs,
}

impl Slow {
    fn new(drain_seconds: &str) -> Result<Self> {
        let setup = Setup::new()?.backend("a", "image", "")?.set("drain_seconds", drain_seconds);
        let tools = setup.scratch().folder("tools")?;
        let mkfs = SlowMkfs::new(&tools)?;
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
        let host = setup.env("PATH", path).start(DUNNAGE)?;
        let made = host.client(PLUGIN)?.create_volume(create("a", 16 * MIB, mount()))?.volume.context("no volume")?;
        let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pods"), true);
        Ok(Self { host, volume, mkfs })
    }

    /// Stages on a thread, up to where mkfs waits; with its process.
    fn stage(&self) -> Result<(JoinHandle<Result<NodeStageVolumeResponse, Status>>, Pid)> {
        let (client, request) = (self.client()?, self.volume.stage());
        let staging = thread::spawn(move || client.node_stage_volume(request));
        wait_until("mkfs to start", LIMIT, || Ok(!self.mkfs.begun()?.is_empty()))?;
        Ok((staging, self.mkfs.begun()?[0]))
    }

    fn client(&self) -> Result<Client> {
        Ok(self.host.client(PLUGIN)?.under("image", Fault::Terminated))
    }

    fn is_mounted(&self) -> Result<bool> {
        Ok(mounts_beneath(&self.host.setup().scratch().path().join("pods"))?.len() == 1)
    }
}

fn runs(process: Pid) -> bool {
    test_kill_process(process).is_ok()
}

#[test]
fn a_call_that_runs_at_sigterm_is_finished_and_answered_and_its_mount_stays() -> Result<()> {
    if !can_run("a_call_that_runs_at_sigterm_is_finished_and_answered_and_its_mount_stays", &[Need::Root])? {
        return Ok(());
    }
    let mut slow = Slow::new("60")?;
    let (staging, _) = slow.stage()?;
    kill_process(slow.host.pid()?, Signal::TERM)?;
    let socket = slow.host.socket(PLUGIN);
    wait_until("the socket to go", LIMIT, || Ok(!socket.exists()))?;
    ensure!(slow.host.ended()?.is_none() && !staging.is_finished(), "it did not wait for the call");
    slow.mkfs.go()?;
    staging.join().expect("the thread panicked").context("the call was not answered")?;
    wait_until("the host to end", LIMIT, || Ok(slow.host.ended()?.is_some()))?;
    ensure!(slow.host.ended()?.is_some_and(|status| status.success()), "it ended with {:?}", slow.host.ended()?);
    ensure!(slow.is_mounted()?, "the mount is gone");
    slow.host.restart()?;
    slow.client()?.node_stage_volume(slow.volume.stage())?;
    ensure!(slow.is_mounted()?, "mounted twice");
    slow.client()?.node_publish_volume(slow.volume.publish())?;
    Ok(())
}

#[test]
fn a_call_that_is_longer_than_the_drain_is_not_answered_and_its_retry_succeeds() -> Result<()> {
    if !can_run("a_call_that_is_longer_than_the_drain_is_not_answered_and_its_retry_succeeds", &[Need::Root])? {
        return Ok(());
    }
    let mut slow = Slow::new("1")?;
    let (staging, mkfs) = slow.stage()?;
    ensure!(slow.host.terminate()?.success(), "a host that was told to stop failed");
    staging.join().expect("the thread panicked").expect_err("an answer without work");
    ensure!(runs(mkfs), "mkfs was cut off, and the file system with it");
    slow.host.restart()?;
    slow.mkfs.go()?;
    slow.client()?.node_stage_volume(slow.volume.stage())?;
    ensure!(slow.is_mounted()?, "not mounted");
    ensure!(slow.mkfs.begun()?.len() == 1, "it was formatted twice: {:?}", slow.mkfs.begun()?);
    Ok(())
}
