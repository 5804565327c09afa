//! Kills while a disk is wiped, and between the two steps of a delete.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, block, mount};
use tonic::Code;

use super::{MIDDLE, Rig, SIZE, byte, can, is, write};

#[test]
fn a_wipe_that_is_killed_goes_on_and_the_disk_is_free_only_then() -> Result<()> {
    if !can("a_wipe_that_is_killed_goes_on_and_the_disk_is_free_only_then")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    for turn in 0..4 {
        let volume = rig.create(&format!("v{turn}"), 1, block())?;
        rig.bring(&volume)?;
        for place in [0, MIDDLE, SIZE - MIB] {
            write(&volume.target, place, &vec![7; MIB as usize])?;
        }
        rig.take(&volume)?;
        rig.delete(&volume)?;
        // Wherever it is by now.
        rig.host.kill()?;
        rig.restart()?;
        rig.wait_for_free(1)?;
        for place in [0, MIDDLE, SIZE - 1] {
            ensure!(byte(rig.disks[0].path(), place)? == 0, "turn {turn}: the byte at {place} is left");
        }
    }
    Ok(())
}

#[test]
fn a_delete_that_was_cut_off_keeps_the_volume_from_use_and_is_ended_by_the_next() -> Result<()> {
    if !can("a_delete_that_was_cut_off_keeps_the_volume_from_use_and_is_ended_by_the_next")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let volume = rig.create("a", 1, mount())?;
    // Twice, so that it is known which file system is the volume's.
    for _ in 0..2 {
        rig.bring(&volume)?;
        rig.take(&volume)?;
    }
    let record = rig.host.setup().root("disks").join(".dunnage/volumes/a");
    let kept = fs::read(&record)?;
    let held = rustix::fs::open(
        rig.disks[0].path(),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    is(rig.delete(&volume), Code::FailedPrecondition, "still in use")?;
    drop(held);
    // Away, so that wiping cannot begin.
    rig.disks[0].unplug()?;
    rig.delete(&volume)?;
    rig.host.kill()?;
    // As the kill before the record was removed had left it.
    fs::write(&record, kept)?;
    rig.disks[0].plug()?;
    rig.restart()?;
    is(rig.bring(&volume), Code::FailedPrecondition, "the volume is being deleted")?;
    ensure!(byte(rig.disks[0].path(), 1080)? == 0x53, "it was wiped while the volume was there");
    rig.delete(&volume)?;
    rig.wait_for_free(1)?;
    is(rig.client.node_stage_volume(volume.stage()), Code::NotFound, "")
}
