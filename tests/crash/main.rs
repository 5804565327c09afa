//! The host is killed at every step of every call that changes anything; the call is repeated, and nothing is lost and
//! nothing left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod killer;
mod life;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1::VolumeCapability;
use dunnage_test_common::{Need, block, can_run, filesystem, mount};

use life::{Kill, Rig};

/// No call has as many steps: a host that is still killed here would be killed for ever.
const MOST: usize = 200;

fn dir() -> Result<Rig> {
    Rig::new("dir", "quota: none", mount(), 16)
}

fn image(capability: VolumeCapability, mebibytes: i64) -> Result<Rig> {
    Rig::new("image", "", capability, mebibytes)
}

/// Kills in the first, second, ... system call of each RPC, until no RPC has as many.
fn within(mut rig: Rig) -> Result<()> {
    let mut kills = 0;
    for nth in 1..MOST {
        let killed = rig.life(Kill::Within(nth))?;
        kills += killed;
        if killed == 0 {
            ensure!(kills > 10, "only {kills} calls were killed: the test does not test");
            return Ok(());
        }
    }
    anyhow::bail!("calls are still killed at their system call {MOST}")
}

fn given_up(mut rig: Rig) -> Result<()> {
    for nth in 1..MOST {
        if !rig.given_up(nth)? {
            ensure!(nth > 5, "only {nth} calls were killed: the test does not test");
            return Ok(());
        }
    }
    anyhow::bail!("calls are still killed at their system call {MOST}")
}

fn can_kill(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Program("strace")])
}

#[test]
fn a_directory_survives_kills_between_all_calls() -> Result<()> {
    if !can_run("a_directory_survives_kills_between_all_calls", &[Need::Root])? {
        return Ok(());
    }
    dir()?.life(Kill::Between).map(drop)
}

#[test]
fn an_image_survives_kills_between_all_calls() -> Result<()> {
    if !can_run("an_image_survives_kills_between_all_calls", &[Need::Root])? {
        return Ok(());
    }
    image(filesystem("xfs"), 320)?.life(Kill::Between)?;
    image(filesystem("btrfs"), 128)?.life(Kill::Between)?;
    image(block(), 16)?.life(Kill::Between).map(drop)
}

#[test]
fn a_directory_survives_a_kill_within_each_call_at_each_system_call() -> Result<()> {
    if !can_kill("a_directory_survives_a_kill_within_each_call_at_each_system_call")? {
        return Ok(());
    }
    within(dir()?)
}

#[test]
fn a_file_system_on_an_image_survives_a_kill_within_each_call_at_each_system_call() -> Result<()> {
    if !can_kill("a_file_system_on_an_image_survives_a_kill_within_each_call_at_each_system_call")? {
        return Ok(());
    }
    within(image(filesystem("xfs"), 320)?)
}

#[test]
fn a_raw_block_image_survives_a_kill_within_each_call_at_each_system_call() -> Result<()> {
    if !can_kill("a_raw_block_image_survives_a_kill_within_each_call_at_each_system_call")? {
        return Ok(());
    }
    within(image(block(), 16)?)
}

#[test]
fn a_stage_or_publish_that_was_killed_and_is_given_up_leaves_nothing() -> Result<()> {
    if !can_kill("a_stage_or_publish_that_was_killed_and_is_given_up_leaves_nothing")? {
        return Ok(());
    }
    given_up(dir()?)?;
    given_up(image(mount(), 16)?)
}
