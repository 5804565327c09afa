//! Where a volume is staged and published, and what may be in the way there.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_test_common::{Client, Fault, Volume, block, mount, mounts_beneath};
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::Code;

use crate::{bring, is, rig, take};

/// The same client while something else is in the way of its volumes.
fn obstructed(client: &Client, volume: &Volume) -> Client {
    client.under(if volume.staging.is_some() { "image" } else { "dir" }, Fault::ForeignTarget)
}

fn tmpfs(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    Ok(rustix::mount::mount("foreign", path, "tmpfs", MountFlags::empty(), c"size=1m")?)
}

#[test]
fn a_file_at_the_target_is_refused_and_left() -> Result<()> {
    let Some(rig) = rig("a_file_at_the_target_is_refused_and_left")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        let volume = rig.volume(client, "a", mount())?;
        fs::create_dir_all(volume.target.parent().unwrap())?;
        fs::write(&volume.target, "mine")?;
        if volume.staging.is_some() {
            client.node_stage_volume(volume.stage())?;
        }
        let client = &obstructed(client, &volume);
        let message = is("a file", client.node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
        ensure!(message.contains(volume.target.to_str().unwrap()), "{message}");
        client.node_unpublish_volume(volume.unpublish())?;
        assert_eq!(fs::read_to_string(&volume.target)?, "mine");
        fs::remove_file(&volume.target)?;
        // A folder above that is a file is as much in the way.
        fs::write(volume.target.with_file_name("file"), "")?;
        let mut below = volume.clone();
        below.target = volume.target.with_file_name("file").join("below");
        below.staging = volume.staging.is_some().then(|| below.target.with_file_name("staging"));
        is("below a file", client.node_publish_volume(below.publish()), Code::FailedPrecondition)?;
        // Nothing can be there, so there is nothing to take away.
        take(client, &below)?;
        fs::remove_file(volume.target.with_file_name("file"))?;
        client.node_publish_volume(volume.publish())?;
        take(client, &volume)?;
    }
    Ok(())
}

#[test]
fn a_symlink_at_the_target_is_not_followed() -> Result<()> {
    let Some(rig) = rig("a_symlink_at_the_target_is_not_followed")? else { return Ok(()) };
    let elsewhere = rig.host.setup().scratch().folder("elsewhere")?;
    for (client, capability) in [(&rig.files, mount()), (&rig.disks, mount())] {
        let volume = rig.volume(client, "a", capability)?;
        fs::create_dir_all(volume.target.parent().unwrap())?;
        std::os::unix::fs::symlink(&elsewhere, &volume.target)?;
        if volume.staging.is_some() {
            client.node_stage_volume(volume.stage())?;
        }
        is("a link", obstructed(client, &volume).node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
        ensure!(mounts_beneath(&elsewhere)?.is_empty(), "the link was followed");
        fs::remove_file(&volume.target)?;
    }
    Ok(())
}

#[test]
fn a_staging_path_that_is_not_mounted_is_mended_with_the_same_data_or_refused() -> Result<()> {
    let Some(rig) = rig("a_staging_path_that_is_not_mounted_is_mended_with_the_same_data_or_refused")? else {
        return Ok(());
    };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    let message = is("never staged", rig.disks.node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
    ensure!(message.contains("stage"), "{message}");
    bring(&rig.disks, &volume)?;
    fs::write(volume.target.join("data"), "data")?;
    rig.disks.node_unpublish_volume(volume.unpublish())?;
    // What a program of somebody else's, or a restart of the kubelet's host, does.
    rustix::mount::unmount(volume.staging.as_ref().unwrap(), UnmountFlags::empty())?;
    obstructed(&rig.disks, &volume).node_publish_volume(volume.publish())?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    ensure!(mounts_beneath(volume.staging.as_ref().unwrap())?.len() == 1, "not staged, or twice");
    take(&rig.disks, &volume)?;
    is("unstaged", rig.disks.node_publish_volume(volume.publish()), Code::FailedPrecondition).map(drop)
}

#[test]
fn a_foreign_mount_at_the_staging_path_is_never_published() -> Result<()> {
    let Some(rig) = rig("a_foreign_mount_at_the_staging_path_is_never_published")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    let staging = volume.staging.clone().unwrap();
    tmpfs(&staging)?;
    let disks = obstructed(&rig.disks, &volume);
    is("stage", disks.node_stage_volume(volume.stage()), Code::FailedPrecondition)?;
    is("publish", disks.node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
    rustix::mount::unmount(&staging, UnmountFlags::empty())?;
    rig.disks.node_stage_volume(volume.stage())?;
    // One that came over it later.
    tmpfs(&staging)?;
    is("publish", disks.node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
    is("unstage", disks.node_unstage_volume(volume.unstage()), Code::FailedPrecondition)?;
    rustix::mount::unmount(&staging, UnmountFlags::empty())?;
    rig.disks.node_publish_volume(volume.publish())?;
    take(&rig.disks, &volume)
}

#[test]
fn a_foreign_mount_at_the_target_is_refused_and_left() -> Result<()> {
    let Some(rig) = rig("a_foreign_mount_at_the_target_is_refused_and_left")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        let volume = rig.volume(client, "a", mount())?;
        if volume.staging.is_some() {
            client.node_stage_volume(volume.stage())?;
        }
        tmpfs(&volume.target)?;
        fs::write(volume.target.join("mine"), "")?;
        let client = &obstructed(client, &volume);
        let message = is("publish", client.node_publish_volume(volume.publish()), Code::FailedPrecondition)?;
        ensure!(message.contains(volume.target.to_str().unwrap()), "{message}");
        is("unpublish", client.node_unpublish_volume(volume.unpublish()), Code::FailedPrecondition)?;
        ensure!(volume.target.join("mine").exists(), "what was somebody else's is gone");
        rustix::mount::unmount(&volume.target, UnmountFlags::empty())?;
        client.node_publish_volume(volume.publish())?;
        take(client, &volume)?;
    }
    Ok(())
}

#[test]
fn a_retried_publish_never_stacks_a_mount() -> Result<()> {
    let Some(rig) = rig("a_retried_publish_never_stacks_a_mount")? else { return Ok(()) };
    for (name, client, capability) in
        [("dir", &rig.files, mount()), ("image", &rig.disks, mount()), ("block", &rig.disks, block())]
    {
        let volume = rig.volume(client, name, capability)?;
        for _ in 0..3 {
            bring(client, &volume)?;
        }
        ensure!(mounts_beneath(&volume.target)?.len() == 1, "{:?}", mounts_beneath(&volume.target)?);
        take(client, &volume)?;
        ensure!(mounts_beneath(volume.target.parent().unwrap())?.is_empty(), "something stays mounted");
    }
    Ok(())
}

#[test]
fn missing_parents_are_made_and_what_was_made_goes() -> Result<()> {
    let Some(rig) = rig("missing_parents_are_made_and_what_was_made_goes")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        let mut volume = rig.volume(client, "a", mount())?;
        volume.target = volume.target.join("many/folders/deep/target");
        volume.staging = volume.staging.map(|path| path.join("as/deep"));
        bring(client, &volume)?;
        take(client, &volume)?;
        ensure!(!volume.target.exists() && volume.target.parent().unwrap().exists(), "the target itself goes");
    }
    Ok(())
}

#[test]
fn data_survives_every_way_to_and_from_the_node() -> Result<()> {
    let Some(rig) = rig("data_survives_every_way_to_and_from_the_node")? else { return Ok(()) };
    for (name, client, capability) in [
        ("dir", &rig.files, mount()),
        ("ext4", &rig.disks, mount()),
        ("btrfs", &rig.disks, dunnage_test_common::filesystem("btrfs")),
    ] {
        let volume = rig.sized(client, name, capability, 128 << 20)?;
        bring(client, &volume)?;
        fs::write(volume.target.join("data"), "data")?;
        for _ in 0..2 {
            take(client, &volume)?;
            bring(client, &volume)?;
            assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
        }
        client.node_unpublish_volume(volume.unpublish())?;
        client.node_publish_volume(volume.publish())?;
        assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
        take(client, &volume)?;
    }
    Ok(())
}

#[test]
fn a_file_at_the_staging_path_is_refused_and_left() -> Result<()> {
    let Some(rig) = rig("a_file_at_the_staging_path_is_refused_and_left")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    let staging = volume.staging.clone().unwrap();
    fs::create_dir_all(staging.parent().unwrap())?;
    fs::write(&staging, "mine")?;
    let disks = obstructed(&rig.disks, &volume);
    let message = is("a file", disks.node_stage_volume(volume.stage()), Code::FailedPrecondition)?;
    ensure!(message.contains(staging.to_str().unwrap()), "{message}");
    let mut below = volume.clone();
    below.staging = Some(staging.join("below"));
    is("below a file", disks.node_stage_volume(below.stage()), Code::FailedPrecondition)?;
    disks.node_unstage_volume(volume.unstage())?;
    assert_eq!(fs::read_to_string(&staging)?, "mine");
    ensure!(
        dunnage_test_common::loop_devices_beneath(rig.host.setup().scratch().path()).is_empty(),
        "a device is left"
    );
    fs::remove_file(&staging)?;
    bring(&rig.disks, &volume)?;
    take(&rig.disks, &volume)
}

#[test]
fn paths_as_long_as_the_kernel_takes_are_used() -> Result<()> {
    let Some(rig) = rig("paths_as_long_as_the_kernel_takes_are_used")? else { return Ok(()) };
    let folder = rig.host.setup().scratch().folder("long")?;
    let longest = |letter: &str| {
        let mut path = folder.clone();
        while path.as_os_str().len() < 4095 {
            let room = 4095 - path.as_os_str().len() - 1;
            // What is left must not be a slash alone.
            path.push(letter.repeat(if room == 256 { 100 } else { room.min(255) }));
        }
        path
    };
    for client in [&rig.files, &rig.disks] {
        let mut volume = rig.volume(client, "a", mount())?;
        volume.staging = volume.staging.map(|_| longest("s"));
        volume.target = longest("t");
        assert_eq!(volume.target.as_os_str().len(), 4095);
        bring(client, &volume)?;
        client.node_get_volume_stats(volume.stats())?;
        client.node_publish_volume(volume.publish())?;
        take(client, &volume)?;
    }
    Ok(())
}
