//! A state folder that cannot be written.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, Host, loop_devices_beneath, mount, mounts_beneath};
use rustix::mount::{MountFlags, mount_remount};
use tonic::Code;

use crate::{DUNNAGE, FAULTY, needs_root, setup, volume};

/// A host whose state folder is a small disk of its own.
fn rig(driver: &str, rest: &str) -> Result<Host> {
    let host = setup(driver, rest)?.prepare(DUNNAGE)?;
    let state = host.setup().scratch().folder("state")?;
    rustix::mount::mount("state", &state, "tmpfs", MountFlags::empty(), c"size=1m,nr_inodes=64")?;
    host.init()?;
    Ok(host)
}

#[test]
fn a_full_state_folder_refuses_what_must_be_recorded_and_nothing_is_left() -> Result<()> {
    if !needs_root("a_full_state_folder_refuses_what_must_be_recorded_and_nothing_is_left")? {
        return Ok(());
    }
    for (driver, rest) in [("dir", "quota: none"), ("image", "")] {
        let mut host = rig(driver, rest)?;
        host.restart()?;
        let client = host.client(FAULTY)?;
        let volume = volume(&host, &client, "a", mount())?;
        let state = host.setup().scratch().path().join("state");
        let mut fillers = 0;
        while fs::write(state.join(format!("filler-{fillers}")), "").is_ok() {
            fillers += 1;
        }
        let sick = client.under(driver, Fault::StateUnwritable);
        let answer = match volume.staging {
            Some(_) => sick.node_stage_volume(volume.stage()).map(drop),
            None => sick.node_publish_volume(volume.publish()).map(drop),
        };
        let status = answer.expect_err("it was not recorded");
        assert_eq!(status.code(), Code::FailedPrecondition, "{driver}: {status:?}");
        ensure!(status.message().contains(state.to_str().unwrap()), "{driver}: {status:?}");
        let pods = host.setup().scratch().path().join("pods");
        ensure!(mounts_beneath(&pods)?.is_empty(), "{driver}: a mount is left");
        ensure!(loop_devices_beneath(host.setup().scratch().path()).is_empty(), "{driver}: a loop device is left");
        (0..fillers).try_for_each(|filler| fs::remove_file(state.join(format!("filler-{filler}"))))?;
        if volume.staging.is_some() {
            client.node_stage_volume(volume.stage())?;
        }
        client.node_publish_volume(volume.publish())?;
        client.node_unpublish_volume(volume.unpublish())?;
        if volume.staging.is_some() {
            client.node_unstage_volume(volume.unstage())?;
        }
    }
    Ok(())
}

#[test]
fn a_state_folder_that_is_read_only_is_named_at_the_start() -> Result<()> {
    if !needs_root("a_state_folder_that_is_read_only_is_named_at_the_start")? {
        return Ok(());
    }
    let mut host = rig("dir", "quota: none")?;
    let state = host.setup().scratch().path().join("state");
    mount_remount(&state, MountFlags::RDONLY, c"")?;
    let output = host.run(&["serve"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(state.to_str().unwrap()), "{said}");
    ensure!(said.contains("Read-only file system"), "{said}");
    let check = host.run(&["check"])?;
    let said = String::from_utf8_lossy(&check.stdout);
    ensure!(!check.status.success() && said.contains("cannot be written"), "{said}");
    mount_remount(&state, MountFlags::empty(), c"")?;
    host.restart()
}
