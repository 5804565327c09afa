//! The host is killed while LVM works for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, MIB, create, expand, mount};

use super::{DISKS, Rig, can};

/// Kills the host at ever later moments of a call, until one has ended before, and has `then` look.
fn at_each_moment(
    rig: &mut Rig,
    call: impl Fn(&dunnage_test_common::Client, usize) + Sync,
    then: impl Fn(&Rig, usize) -> Result<()>,
) -> Result<()> {
    for step in 0..40 {
        let client = rig.under(Fault::Killed);
        let (moment, begun) = (Duration::from_millis(250 * step as u64), Instant::now());
        let mut ended = false;
        std::thread::scope(|scope| -> Result<()> {
            let running = scope.spawn(|| call(&client, step));
            while begun.elapsed() < moment && !running.is_finished() {
                std::thread::sleep(Duration::from_millis(2));
            }
            ended = running.is_finished();
            rig.host.kill()
        })?;
        rig.restart()?;
        then(rig, step).with_context(|| format!("killed after {moment:?}"))?;
        if ended {
            ensure!(step > 1, "only {step} calls were killed: the test does not test");
            return Ok(());
        }
    }
    anyhow::bail!("a call takes for ever")
}

/// What is made is made once, and goes.
fn is_made_once(rig: &Rig, name: &str, bytes: i64, others: &[&str]) -> Result<()> {
    let client = rig.under(Fault::Killed);
    let made = client.create_volume(create(name, bytes, mount()))?.volume.unwrap();
    let again = client.create_volume(create(name, bytes, mount()))?.volume.unwrap();
    ensure!(made == again, "{made:?}, then {again:?}");
    let listed = rig.client.list_volumes(Default::default())?.entries;
    ensure!(listed.len() == 1, "{listed:?}");
    let request = csi::DeleteVolumeRequest { volume_id: made.volume_id, ..Default::default() };
    rig.client.delete_volume(request)?;
    rig.is_left_with(others)
}

#[test]
fn a_thick_create_that_is_killed_is_done_by_the_retry_and_leaves_nothing() -> Result<()> {
    if !can("a_thick_create_that_is_killed_is_done_by_the_retry_and_leaves_nothing")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[256], "")?;
    let name = |step: usize| format!("v{step}");
    let call =
        |client: &dunnage_test_common::Client, step| drop(client.create_volume(create(&name(step), 64 * MIB, mount())));
    at_each_moment(&mut rig, call, |rig, step| is_made_once(rig, &name(step), 64 * MIB, &[]))
}

#[test]
fn a_thin_create_that_is_killed_is_done_by_the_retry_and_leaves_nothing() -> Result<()> {
    if !can("a_thin_create_that_is_killed_is_done_by_the_retry_and_leaves_nothing")? {
        return Ok(());
    }
    let mut rig = Rig::thin(128, "")?;
    let name = |step: usize| format!("v{step}");
    let call =
        |client: &dunnage_test_common::Client, step| drop(client.create_volume(create(&name(step), 64 * MIB, mount())));
    at_each_moment(&mut rig, call, |rig, step| is_made_once(rig, &name(step), 64 * MIB, &["pool"]))
}

#[test]
fn a_growth_that_is_killed_is_done_by_the_retry_and_leaves_nothing() -> Result<()> {
    if !can("a_growth_that_is_killed_is_done_by_the_retry_and_leaves_nothing")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[512], "")?;
    let volume = rig.create("a", 16 * MIB, mount())?;
    let size = |step: usize| (20 + 4 * step as i64) * MIB;
    let id = volume.id();
    let call =
        |client: &dunnage_test_common::Client, step| drop(client.controller_expand_volume(expand(&id, size(step))));
    at_each_moment(&mut rig, call, |rig, step| {
        let grown = rig.client.controller_expand_volume(expand(&id, size(step)))?;
        ensure!(grown.capacity_bytes == size(step), "{grown:?}");
        // The thing that held the extents may be what the killed call's last command makes: the next start removes it.
        let volumes = rig.group.volumes()?;
        ensure!(volumes == ["vol-a"], "{volumes:?}");
        Ok(())
    })?;
    rig.bring(&volume)?;
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])
}

#[test]
fn a_stage_and_an_unstage_that_are_killed_leave_no_device() -> Result<()> {
    if !can("a_stage_and_an_unstage_that_are_killed_leave_no_device")? {
        return Ok(());
    }
    let mut rig = Rig::thin(128, "")?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    at_each_moment(
        &mut rig,
        |client, _| drop(client.node_stage_volume(volume.stage())),
        |rig, _| {
            let client = rig.under(Fault::Killed);
            client.node_stage_volume(volume.stage())?;
            client.node_unstage_volume(volume.unstage())?;
            rig.is_left_with(&["pool", "vol-a"])
        },
    )?;
    // Also where the store is gone for good.
    rig.bring(&volume)?;
    rig.client.node_unpublish_volume(volume.unpublish())?;
    rig.host.kill()?;
    rig.group.lvm(&["vgchange", "-qq", "--deltag", "dunnage.form=1", rig.group.name()])?;
    rig.host.spawn()?;
    rig.host.wait_for_log("dunnage.form is missing")?;
    rig.host.wait_for(DISKS)?;
    rig.host.client(DISKS)?.under("lvm", Fault::ForeignStore).node_unstage_volume(volume.unstage())?;
    rig.is_left_with(&["pool", "vol-a"])
}
