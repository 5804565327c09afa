//! A program that formats outlives its host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Setup, Volume, can_run, create, filesystem, loop_devices_beneath, wait_until,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tonic::Code;

use crate::life::{DUNNAGE, LIMIT};

const CSI_NAME: &str = "a.csi.dunnage.dev";
/// Shorter than a formatting that waits for the test, and long enough for one to begin.
const SOON: Duration = Duration::from_secs(3);

/// A mkfs.ext4 that writes half of something, and goes on when it is let; it ends with its folder too.
pub(crate) struct SlowMkfs(PathBuf);

impl SlowMkfs {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("mkfs.ext4");
        let script = r#"#!/bin/sh
for device; do :; done
printf 'half of it' | dd of="$device" bs=1 seek=8192 conv=notrunc 2>/dev/null
echo $$ >> "$0.begun"
while [ ! -e "$0.go" ]; do
    [ -e "$0" ] || exit 1
    sleep 0.01
done
PATH=/usr/sbin:/sbin:/usr/bin:/bin
exec mkfs.ext4 "$@"
"#;
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    /// Every one that began.
    pub(crate) fn begun(&self) -> Result<Vec<Pid>> {
        let begun = fs::read_to_string(self.0.with_extension("ext4.begun")).unwrap_or_default();
        begun.lines().map(|line| line.parse().ok().and_then(Pid::from_raw).context("no number")).collect()
    }

    pub(crate) fn go(&self) -> Result<()> {
        Ok(fs::write(self.0.with_extension("ext4.go"), "")?)
    }
}

/// A host that was killed while it formatted, and started again.
struct Rig {
    host: Host,
    mkfs: SlowMkfs,
    volume: Volume,
    device: PathBuf,
}

impl Rig {
    fn new() -> Result<Self> {
        let setup = Setup::new()?.backend("a", "image", "")?;
        let tools = setup.scratch().folder("tools")?;
        let mkfs = SlowMkfs::new(&tools)?;
        let mut host = setup.env("PATH", format!("{}:/usr/bin:/bin", tools.display())).start(DUNNAGE)?;
        let client = host.client(CSI_NAME)?;
        let folder = host.setup().scratch().path().to_owned();
        let made: csi::Volume =
            client.create_volume(create("v", 64 * MIB, filesystem("ext4")))?.volume.context("no volume")?;
        let volume = Volume::new(made, filesystem("ext4"), &folder.join("pods"), true);
        let status = client.with_deadline(SOON).node_stage_volume(volume.stage()).expect_err("it was formatted");
        ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
        wait_until("mkfs has begun", LIMIT, || Ok(mkfs.begun()?.len() == 1))?;
        host.kill()?;
        host.restart()?;
        let [device] = loop_devices_beneath(&folder).try_into().ok().context("not one loop device")?;
        Ok(Self { host, mkfs, volume, device })
    }

    /// A stage of the next host finds the first program at work, and waits.
    fn waits(&self) -> Result<Client> {
        let client = self.host.client(CSI_NAME)?;
        let status =
            client.with_deadline(SOON).node_stage_volume(self.volume.stage()).expect_err("it did not wait for mkfs");
        ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
        let first = self.mkfs.begun()?;
        ensure!(first.len() == 1, "another mkfs was started beside it: {first:?}");
        test_kill_process(first[0]).context("mkfs did not outlive its host")?;
        let bound = loop_devices_beneath(self.host.setup().scratch().path());
        ensure!(bound == [self.device.clone()], "the device was taken from under mkfs: {bound:?}");
        Ok(client)
    }

    /// The volume works, and is taken away; mkfs has run so often.
    fn works(self, client: &Client, runs: usize) -> Result<()> {
        client.under("image", Fault::Killed).node_stage_volume(self.volume.stage())?;
        client.node_publish_volume(self.volume.publish())?;
        fs::write(self.volume.target.join("data"), "kept")?;
        ensure!(self.mkfs.begun()?.len() == runs, "mkfs ran {:?}", self.mkfs.begun()?);
        client.node_unpublish_volume(self.volume.unpublish())?;
        client.node_unstage_volume(self.volume.unstage())?;
        client.delete_volume(self.volume.delete())?;
        let left = loop_devices_beneath(self.host.setup().scratch().path());
        ensure!(left.is_empty(), "loop devices are left: {left:?}");
        Ok(())
    }
}

#[test]
fn a_formatting_that_outlives_its_host_is_waited_for_and_its_file_system_used() -> Result<()> {
    let test = "a_formatting_that_outlives_its_host_is_waited_for_and_its_file_system_used";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let client = rig.waits()?;
    rig.mkfs.go()?;
    rig.works(&client, 1)
}

#[test]
fn a_formatting_that_outlives_its_host_and_is_killed_then_is_done_again() -> Result<()> {
    let test = "a_formatting_that_outlives_its_host_and_is_killed_then_is_done_again";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let client = rig.waits()?;
    kill_process(rig.mkfs.begun()?[0], Signal::KILL)?;
    rig.mkfs.go()?;
    rig.works(&client, 2)
}
