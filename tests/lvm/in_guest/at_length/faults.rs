//! Disks that fail, and disks that are gone.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{Failing, Fault, FaultyDisk, MIB, Setup, VolumeGroup, create, mount, wait_until};
use tonic::Code;

use super::{LIMIT, Rig, can, is};

fn faulty() -> Result<(Rig, FaultyDisk)> {
    let setup = Setup::new()?;
    let disk = FaultyDisk::new(&setup.scratch().path().join("below"), 256)?;
    let group = VolumeGroup::on(setup.scratch(), vec![disk.path()?])?;
    Ok((Rig::on(setup, group, "type: thick\n")?, disk))
}

/// The metadata of a group is in the first mebibyte, the first volume after it.
const DATA: u64 = 1 << 11;

#[test]
fn a_disk_that_cannot_be_read_or_written_is_never_formatted_and_loses_nothing() -> Result<()> {
    if !can("a_disk_that_cannot_be_read_or_written_is_never_formatted_and_loses_nothing")? {
        return Ok(());
    }
    let (rig, disk) = faulty()?;
    // While it is wiped: it is no volume, and no room is lost.
    disk.fail_from(DATA, Failing::Writes)?;
    is(rig.under(Fault::WriteErrors).create_volume(create("a", 64 * MIB, mount())), Code::Internal, "cannot zero")?;
    disk.heal()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    // While it is looked at.
    disk.fail_from(DATA, Failing::All)?;
    is(rig.under(Fault::ReadErrors).node_stage_volume(volume.stage()), Code::Internal, "")?;
    // While it is formatted.
    disk.fail_from(DATA, Failing::Writes)?;
    is(rig.under(Fault::WriteErrors).node_stage_volume(volume.stage()), Code::Internal, "")?;
    disk.heal()?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    rig.take(&volume)?;
    // While it is mounted, with data on it.
    disk.fail_from(DATA, Failing::All)?;
    ensure!(rig.under(Fault::ReadErrors).node_stage_volume(volume.stage()).is_err(), "it was staged");
    disk.heal()?;
    rig.bring(&volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])
}

#[test]
fn a_disk_that_fails_under_a_mounted_volume_lets_it_be_taken_away() -> Result<()> {
    if !can("a_disk_that_fails_under_a_mounted_volume_lets_it_be_taken_away")? {
        return Ok(());
    }
    let (rig, disk) = faulty()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    // All of it, with LVM's own metadata.
    disk.fail_from(0, Failing::All)?;
    let sick = rig.under(Fault::StoreGone);
    sick.node_unpublish_volume(volume.unpublish())?;
    sick.node_unstage_volume(volume.unstage())?;
    ensure!(rig.group.active()?.is_empty(), "{:?} is left", rig.group.active()?);
    let found = sick.delete_volume(volume.delete()).expect_err("it was deleted");
    ensure!(found.code() != Code::NotFound, "{found:?}");
    // What was read before is good for a moment.
    wait_until("the group to be looked at again", LIMIT, || Ok(sick.list_volumes(Default::default()).is_err()))?;
    disk.heal()?;
    assert_eq!(rig.create("a", 64 * MIB, mount())?.made, volume.made);
    Ok(())
}

#[test]
fn a_group_with_a_missing_disk_is_told_and_its_volumes_are_not_said_to_be_gone() -> Result<()> {
    if !can("a_group_with_a_missing_disk_is_told_and_its_volumes_are_not_said_to_be_gone")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[64, 256], "")?;
    let small = rig.create("small", 48 * MIB, mount())?;
    let mut mirrored = create("mirrored", 8 * MIB, dunnage_test_common::block());
    mirrored.parameters.insert("type".into(), "raid1".into());
    let mirrored = rig.create_with(mirrored)?;
    let large = rig.create("large", 128 * MIB, mount())?;
    rig.host.kill()?;
    rig.group.lvm(&["vgchange", "-qq", "--activate", "n", rig.group.name()])?;
    let lost = rig.group.devices()[1].clone();
    let away = format!("{lost}.away");
    fs::rename(&lost, &away)?;
    rig.restart()?;
    let sick = rig.under(Fault::DiskMissing);
    assert_eq!(sick.list_volumes(Default::default())?.entries.len(), 3);
    is(sick.create_volume(create("new", 16 * MIB, mount())), Code::FailedPrecondition, "are missing")?;
    is(sick.delete_volume(large.delete()), Code::FailedPrecondition, "are missing")?;
    is(sick.node_stage_volume(large.stage()), Code::FailedPrecondition, "lost a disk with data")?;
    for (volume, wanted) in [(&large, &["DiskMissing"][..]), (&mirrored, &["RaidDegraded"]), (&small, &[])] {
        rig.wait_for_health(&sick, &volume.id(), wanted)?;
    }
    for volume in [&small, &mirrored] {
        sick.node_stage_volume(volume.stage())?;
        sick.node_publish_volume(volume.publish())?;
        sick.node_unpublish_volume(volume.unpublish())?;
        sick.node_unstage_volume(volume.unstage())?;
    }
    // Without all of its disks nothing is known of it.
    let first = rig.group.devices()[0].clone();
    fs::rename(&first, format!("{first}.away"))?;
    let gone = rig.under(Fault::StoreGone);
    wait_until("the group to be looked at again", LIMIT, || Ok(gone.list_volumes(Default::default()).is_err()))?;
    is(gone.delete_volume(small.delete()), Code::FailedPrecondition, "is a disk missing?")?;
    is(gone.node_stage_volume(small.stage()), Code::FailedPrecondition, "is a disk missing?")?;
    fs::rename(format!("{first}.away"), &first)?;
    fs::rename(&away, &lost)?;
    rig.restart()?;
    rig.bring(&large)?;
    rig.take(&large)
}
