//! The host is killed at every step of every call that changes anything; the call is repeated, and nothing is lost and
//! nothing left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod copies;
mod formatting;
mod in_guest;
mod inline;
mod killer;
mod life;
mod stop;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::VolumeCapability;
use dunnage_test_common::{Need, Setup, block, can_run, filesystem, mount, mount_new};

use killer::{CALLS, Nth};
use life::{Kill, Rig};

/// No RPC has as many system calls of one name: a host that is killed here would be killed for ever.
const MOST: usize = 200;

const INLINE: &str = "ephemeral: {max_size: 16Mi}";

fn dir() -> Result<Rig> {
    Rig::new("dir", &format!("quota: none\n{INLINE}"), mount(), 16)
}

fn btrfs() -> Result<Rig> {
    let setup = Setup::new()?.backend("a", "btrfs", INLINE)?;
    mount_new(&setup.scratch().path().join("disk"), 512, &setup.root("a"), &["mkfs.btrfs", "-q"], "loop")?;
    Rig::on("btrfs", setup, mount(), 16)
}

/// Images on a file system that shares blocks.
fn shared_image(capability: VolumeCapability) -> Result<Rig> {
    let setup = Setup::new()?.backend("a", "image", "")?;
    mount_new(&setup.scratch().path().join("disk"), 512, &setup.root("a"), &["mkfs.xfs", "-q"], "loop")?;
    Rig::on("image", setup, capability, 16)
}

/// Images on a file system that shares none.
fn unshared_image(capability: VolumeCapability, mebibytes: i64) -> Result<Rig> {
    let setup = Setup::new()?.backend("a", "image", "")?;
    mount_new(&setup.scratch().path().join("disk"), 768, &setup.root("a"), &["mkfs.ext4", "-q"], "loop")?;
    Rig::on("image", setup, capability, mebibytes)
}

fn image(capability: VolumeCapability, mebibytes: i64) -> Result<Rig> {
    Rig::new("image", INLINE, capability, mebibytes)
}

/// Runs `life` for the first, second, ... system call of each name, until it is not killed any more.
fn at_each(life: impl FnMut(Nth) -> Result<usize>, least: usize) -> Result<()> {
    at_each_of(&CALLS, life, least)
}

/// The same for these system calls alone.
fn at_each_of(calls: &[&'static str], mut life: impl FnMut(Nth) -> Result<usize>, least: usize) -> Result<()> {
    let mut kills = 0;
    for &call in calls {
        let mut nth = 1;
        loop {
            let killed = life(Nth(call, nth)).with_context(|| format!("killed at {call} {nth}"))?;
            if killed == 0 {
                break;
            }
            (kills, nth) = (kills + killed, nth + 1);
            ensure!(nth < MOST, "still killed at {call} {nth}");
        }
    }
    ensure!(kills >= least, "only {kills} calls were killed: the test does not test");
    Ok(())
}

fn can_kill_on_btrfs(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.btrfs")])
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
fn copies_of_a_directory_survive_a_kill_at_each_system_call() -> Result<()> {
    if !can_kill("copies_of_a_directory_survive_a_kill_at_each_system_call")? {
        return Ok(());
    }
    let mut rig = dir()?;
    rig.copied_life(Kill::Between)?;
    at_each(|nth| rig.copied_life(Kill::Within(nth)), 40)
}

#[test]
fn a_subvolume_survives_kills_between_and_within_all_calls() -> Result<()> {
    if !can_kill_on_btrfs("a_subvolume_survives_kills_between_and_within_all_calls")? {
        return Ok(());
    }
    let mut rig = btrfs()?;
    rig.life(Kill::Between)?;
    at_each(|nth| rig.life(Kill::Within(nth)), 30)
}

#[test]
fn copies_of_a_subvolume_survive_kills_between_and_within_all_calls() -> Result<()> {
    if !can_kill_on_btrfs("copies_of_a_subvolume_survive_kills_between_and_within_all_calls")? {
        return Ok(());
    }
    let mut rig = btrfs()?;
    rig.copied_life(Kill::Between)?;
    at_each(|nth| rig.copied_life(Kill::Within(nth)), 30)
}

#[test]
fn copies_of_an_image_that_is_in_use_survive_a_kill_at_each_system_call_and_leave_nothing_frozen() -> Result<()> {
    let test = "copies_of_an_image_that_is_in_use_survive_a_kill_at_each_system_call_and_leave_nothing_frozen";
    if !can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    let mut rig = shared_image(mount())?;
    rig.copied_life(Kill::Between)?;
    at_each(|nth| rig.copied_life(Kill::Within(nth)), 40)
}

#[test]
fn copies_in_the_background_survive_a_kill_at_each_system_call() -> Result<()> {
    let test = "copies_in_the_background_survive_a_kill_at_each_system_call";
    if !can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let mut rig = unshared_image(mount(), 16)?;
    rig.background_life(Kill::Between)?;
    at_each(|nth| rig.background_life(Kill::Within(nth)), 40)
}

#[test]
fn a_large_copy_survives_a_kill_at_each_of_its_durable_steps() -> Result<()> {
    let test = "a_large_copy_survives_a_kill_at_each_of_its_durable_steps";
    if !can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let mut rig = unshared_image(block(), 160)?;
    let volume = rig.full()?;
    at_each_of(&["fdatasync", "fsync", "renameat"], |nth| rig.copied_whole(&volume, Kill::Within(nth)), 10)
}

#[test]
fn a_group_of_images_in_use_survives_a_kill_at_each_system_call_whole() -> Result<()> {
    let test = "a_group_of_images_in_use_survives_a_kill_at_each_system_call_whole";
    if !can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    let mut rig = shared_image(mount())?;
    rig.grouped_life(Kill::Between)?;
    let calls = ["openat2", "renameat", "renameat2", "unlinkat", "fsync", "ioctl", "execve"];
    at_each_of(&calls, |nth| rig.grouped_life(Kill::Within(nth)), 20)
}

#[test]
fn a_subvolume_made_after_a_killed_delete_of_its_name_is_whole_and_empty() -> Result<()> {
    if !can_kill_on_btrfs("a_subvolume_made_after_a_killed_delete_of_its_name_is_whole_and_empty")? {
        return Ok(());
    }
    let mut rig = btrfs()?;
    at_each(|nth| rig.made_anew(nth).map(usize::from), 3)?;
    at_each(|nth| rig.given_up(nth).map(usize::from), 5)
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
    let mut rig = dir()?;
    at_each(|nth| rig.life(Kill::Within(nth)), 30)
}

#[test]
fn a_file_system_on_an_image_survives_a_kill_within_each_call_at_each_system_call() -> Result<()> {
    if !can_kill("a_file_system_on_an_image_survives_a_kill_within_each_call_at_each_system_call")? {
        return Ok(());
    }
    let mut rig = image(filesystem("xfs"), 320)?;
    at_each(|nth| rig.life(Kill::Within(nth)), 60)
}

#[test]
fn a_raw_block_image_survives_a_kill_within_each_call_at_each_system_call() -> Result<()> {
    if !can_kill("a_raw_block_image_survives_a_kill_within_each_call_at_each_system_call")? {
        return Ok(());
    }
    let mut rig = image(block(), 16)?;
    at_each(|nth| rig.life(Kill::Within(nth)), 60)
}

#[test]
fn a_stage_or_publish_that_was_killed_and_is_given_up_leaves_nothing() -> Result<()> {
    if !can_kill("a_stage_or_publish_that_was_killed_and_is_given_up_leaves_nothing")? {
        return Ok(());
    }
    let (mut dir, mut image) = (dir()?, image(mount(), 16)?);
    at_each(|nth| dir.given_up(nth).map(usize::from), 5)?;
    at_each(|nth| image.given_up(nth).map(usize::from), 15)
}

#[test]
fn a_volume_made_after_a_killed_delete_of_its_name_is_whole_and_empty() -> Result<()> {
    if !can_kill("a_volume_made_after_a_killed_delete_of_its_name_is_whole_and_empty")? {
        return Ok(());
    }
    let (mut dir, mut image) = (dir()?, image(block(), 16)?);
    at_each(|nth| dir.made_anew(nth).map(usize::from), 3)?;
    at_each(|nth| image.made_anew(nth).map(usize::from), 3)
}

#[test]
fn an_inline_volume_survives_a_kill_within_each_call_and_goes_with_its_pod() -> Result<()> {
    if !can_kill("an_inline_volume_survives_a_kill_within_each_call_and_goes_with_its_pod")? {
        return Ok(());
    }
    let (mut dir, mut image) = (dir()?, image(mount(), 16)?);
    dir.inline_life(Kill::Between)?;
    image.inline_life(Kill::Between)?;
    at_each(|nth| dir.inline_life(Kill::Within(nth)), 15)?;
    at_each(|nth| image.inline_life(Kill::Within(nth)), 30)
}

#[test]
fn an_inline_volume_whose_publish_was_killed_and_is_given_up_leaves_nothing() -> Result<()> {
    if !can_kill("an_inline_volume_whose_publish_was_killed_and_is_given_up_leaves_nothing")? {
        return Ok(());
    }
    let (mut dir, mut image) = (dir()?, image(mount(), 16)?);
    at_each(|nth| dir.inline_given_up(nth).map(usize::from), 8)?;
    at_each(|nth| image.inline_given_up(nth).map(usize::from), 15)
}
