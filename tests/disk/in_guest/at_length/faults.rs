//! Disks that go, come, and cannot be read.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{ScsiDisk, mount, wait_until};
use tonic::Code;

use super::{LIMIT, Rig, SIZE, can, is};

#[test]
fn a_disk_that_went_is_missed_and_its_volume_is_never_said_to_be_gone() -> Result<()> {
    if !can("a_disk_that_went_is_missed_and_its_volume_is_never_said_to_be_gone")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let volume = rig.create("a", 1, mount())?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    rig.take(&volume)?;
    rig.wait_for_health(&volume.id(), &[])?;
    rig.disks[0].unplug()?;
    rig.wait_for_health(&volume.id(), &["DiskMissing"])?;
    rig.restart()?;
    assert_eq!(rig.client.list_volumes(Default::default())?.entries.len(), 1);
    assert_eq!(rig.create("a", 1, mount())?.made, volume.made);
    is(rig.bring(&volume), Code::FailedPrecondition, "is not on this node")?;
    is(rig.create("b", 1, mount()).map(drop), Code::ResourceExhausted, "no disk of this node is named")?;
    rig.disks[0].plug()?;
    rig.wait_for_health(&volume.id(), &[])?;
    rig.bring(&volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    rig.take(&volume)
}

#[test]
fn a_disk_that_was_away_when_its_volume_was_deleted_is_wiped_when_it_is_back() -> Result<()> {
    if !can("a_disk_that_was_away_when_its_volume_was_deleted_is_wiped_when_it_is_back")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let volume = rig.create("a", 1, mount())?;
    for _ in 0..2 {
        rig.bring(&volume)?;
        rig.take(&volume)?;
    }
    rig.disks[0].unplug()?;
    rig.delete(&volume)?;
    is(rig.client.node_stage_volume(volume.stage()), Code::NotFound, "")?;
    rig.restart()?;
    rig.disks[0].plug()?;
    rig.wait_for_free(1)?;
    ensure!(super::byte(rig.disks[0].path(), 1080)? == 0, "the file system is left");
    Ok(())
}

#[test]
fn a_disk_that_is_plugged_in_is_seen_without_a_restart() -> Result<()> {
    if !can("a_disk_that_is_plugged_in_is_seen_without_a_restart")? {
        return Ok(());
    }
    let mut disks = ScsiDisk::lend(2)?;
    let devices: Vec<_> = disks.iter().map(|disk| disk.link().display().to_string()).collect();
    disks[1].unplug()?;
    let mut rig = Rig::of(disks, &devices, "")?;
    assert_eq!(rig.capacity()?.available_capacity, SIZE);
    rig.create("a", 1, mount())?;
    is(rig.create("b", 1, mount()).map(drop), Code::ResourceExhausted, "")?;
    rig.disks[1].plug()?;
    rig.wait_for_free(1)?;
    rig.create("b", 1, mount())?;
    Ok(())
}

/// Has every disk of the module fail to read some sectors within its first MiBs.
fn read_errors(yes: bool) -> Result<()> {
    Ok(fs::write("/sys/bus/pseudo/drivers/scsi_debug/opts", if yes { "2" } else { "0" })?)
}

#[test]
fn a_disk_that_cannot_be_read_is_not_empty_and_in_the_way_of_no_other() -> Result<()> {
    if !can("a_disk_that_cannot_be_read_is_not_empty_and_in_the_way_of_no_other")? {
        return Ok(());
    }
    let rig = Rig::on(1, "")?;
    read_errors(true)?;
    let refused = is(rig.create("a", 1, mount()).map(drop), Code::ResourceExhausted, "it cannot be read");
    let free = rig.capacity().map(|room| room.available_capacity);
    read_errors(false)?;
    refused?;
    assert_eq!(free?, 0);
    wait_until("the disk to be taken", LIMIT, || Ok(rig.create("a", 1, mount()).is_ok()))
}
