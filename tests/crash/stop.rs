//! The end of the host while a program that it runs is at work: mkfs, which here waits until a test lets it go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::NodeStageVolumeResponse;
use dunnage_test_common::{Client, Host, MIB, Need, Setup, Volume, can_run, create, mount, mounts_beneath, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tonic::Status;

use crate::life::DUNNAGE;

const LIMIT: Duration = Duration::from_secs(60);
const PLUGIN: &str = "a.csi.dunnage.dev";

/// A host whose mkfs.ext4 waits, and a volume that is to be staged.
struct Slow {
    host: Host,
    volume: Volume,
    tools: PathBuf,
}

impl Slow {
    fn new(drain_seconds: &str) -> Result<Self> {
        let setup = Setup::new()?.backend("a", "image", "")?.set("drain_seconds", drain_seconds);
        let tools = setup.scratch().folder("tools")?;
        slow(&tools)?;
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
        let host = setup.env("PATH", path).start(DUNNAGE)?;
        let made = host.client(PLUGIN)?.create_volume(create("a", 16 * MIB, mount()))?.volume.context("no volume")?;
        let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pods"), true);
        Ok(Self { host, volume, tools })
    }

    /// Stages on a thread, up to where mkfs waits; with its process.
    fn stage(&self) -> Result<(JoinHandle<Result<NodeStageVolumeResponse, Status>>, Pid)> {
        let (client, request) = (self.host.client(PLUGIN)?, self.volume.stage());
        let staging = thread::spawn(move || client.node_stage_volume(request));
        let started = self.tools.join("started");
        wait_until("mkfs to start", LIMIT, || Ok(started.exists()))?;
        let mkfs = fs::read_to_string(&started)?.trim().parse::<i32>()?;
        fs::remove_file(&started)?;
        Ok((staging, Pid::from_raw(mkfs).context("no process")?))
    }

    fn let_go_on(&self) -> Result<()> {
        fs::write(self.tools.join("go"), "").context("cannot let mkfs go on")
    }

    fn client(&self) -> Result<Client> {
        self.host.client(PLUGIN)
    }

    fn is_mounted(&self) -> Result<bool> {
        Ok(mounts_beneath(&self.host.setup().scratch().path().join("pods"))?.len() == 1)
    }
}

fn slow(tools: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\ncd {}\necho $$ > new && mv new started\nwhile ! test -e go; do sleep 0.01; done\ncd /\n\
         PATH=/usr/sbin:/sbin exec mkfs.ext4 \"$@\"\n",
        tools.display()
    );
    let path = tools.join("mkfs.ext4");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
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
    slow.let_go_on()?;
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
fn a_call_that_is_longer_than_the_drain_is_cut_off_and_its_retry_succeeds() -> Result<()> {
    if !can_run("a_call_that_is_longer_than_the_drain_is_cut_off_and_its_retry_succeeds", &[Need::Root])? {
        return Ok(());
    }
    let mut slow = Slow::new("1")?;
    let (staging, mkfs) = slow.stage()?;
    ensure!(slow.host.terminate()?.success(), "a host that was told to stop failed");
    staging.join().expect("the thread panicked").expect_err("an answer without work");
    wait_until("mkfs to end with its host", LIMIT, || Ok(!runs(mkfs)))?;
    slow.let_go_on()?;
    slow.host.restart()?;
    slow.client()?.node_stage_volume(slow.volume.stage())?;
    ensure!(slow.is_mounted()?, "not mounted");
    Ok(())
}

#[test]
fn a_killed_host_takes_its_mkfs_with_it_and_the_retry_formats_anew() -> Result<()> {
    if !can_run("a_killed_host_takes_its_mkfs_with_it_and_the_retry_formats_anew", &[Need::Root])? {
        return Ok(());
    }
    let mut slow = Slow::new("20")?;
    let (staging, mkfs) = slow.stage()?;
    ensure!(runs(mkfs), "mkfs does not run");
    slow.host.kill()?;
    wait_until("mkfs to end with its host", LIMIT, || Ok(!runs(mkfs)))?;
    staging.join().expect("the thread panicked").expect_err("an answer of the dead");
    slow.let_go_on()?;
    slow.host.restart()?;
    slow.client()?.node_stage_volume(slow.volume.stage())?;
    slow.client()?.node_publish_volume(slow.volume.publish())?;
    Ok(())
}
