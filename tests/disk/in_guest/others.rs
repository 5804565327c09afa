//! Disks that are somebody else's.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, ScsiDisk, block, mount, run};
use tonic::Code;

use super::{MIDDLE, Rig, SIZE, byte, can, is, write};

/// That the only disk of the rig is taken by nobody, for this reason, and not a byte of it is changed.
fn is_left_alone(rig: &Rig, why: &str) -> Result<()> {
    is(rig.create("x", 1, block()).map(drop), Code::ResourceExhausted, why)?;
    assert_eq!(rig.capacity()?.available_capacity, 0, "{why}");
    Ok(())
}

#[test]
fn a_disk_that_carries_anything_is_never_taken() -> Result<()> {
    if !can("a_disk_that_carries_anything_is_never_taken")? {
        return Ok(());
    }
    let disks = ScsiDisk::lend(1)?;
    let path = disks[0].path().to_owned();
    let device = path.display().to_string();
    for (program, arguments) in [
        ("mkfs.ext4", &["-q", "-F"][..]),
        ("mkfs.btrfs", &["-q", "-f", "-M"]),
        ("mkswap", &["-f"]),
        ("sfdisk-gpt", &[]),
    ] {
        if program == "sfdisk-gpt" {
            disks[0].part(&[16])?;
        } else {
            run(program, &[arguments, &[device.as_str()]].concat())?;
        }
        let rig = Rig::of(Vec::new(), std::slice::from_ref(&device), "")?;
        is_left_alone(&rig, if program == "sfdisk-gpt" { "it has partitions" } else { "it carries something" })?;
        disks[0].wipe()?;
    }
    for place in [0, 510, 3 * MIB, 64 * MIB, SIZE - 1] {
        write(&path, place, &[1])?;
        let rig = Rig::of(Vec::new(), std::slice::from_ref(&device), "")?;
        is_left_alone(&rig, &format!("the first byte at {place}"))?;
        ensure!(byte(&path, place)? == 1, "{place} was written to");
        write(&path, place, &[0])?;
    }
    // And then it is empty.
    let rig = Rig::of(disks, &[device], "")?;
    rig.create("x", 1, block())?;
    Ok(())
}

#[test]
fn a_blank_disk_that_somebody_holds_is_never_taken() -> Result<()> {
    if !can("a_blank_disk_that_somebody_holds_is_never_taken")? {
        return Ok(());
    }
    let disks = ScsiDisk::lend(1)?;
    let path = disks[0].path().to_owned();
    let device = path.display().to_string();
    let rig = Rig::of(disks, std::slice::from_ref(&device), "")?;
    let sectors = (SIZE / 512).to_string();
    run("modprobe", &["dm_mod"])?;
    run("dmsetup", &["create", "holds-it", "--noudevsync", "--table", &format!("0 {sectors} linear {device} 0")])?;
    is(rig.create("x", 1, block()).map(drop), Code::ResourceExhausted, "it is a part of dm-")?;
    run("dmsetup", &["remove", "--noudevsync", "holds-it"])?;
    let held = rustix::fs::open(
        &path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    is(rig.create("x", 1, block()).map(drop), Code::ResourceExhausted, "it is in use")?;
    drop(held);
    // Read-only, and then as it was.
    run("blockdev", &["--setro", &device])?;
    is(rig.create("x", 1, block()).map(drop), Code::ResourceExhausted, "it is read-only")?;
    run("blockdev", &["--setrw", &device])?;
    rig.create("x", 1, block())?;
    Ok(())
}

#[test]
fn a_volume_that_was_never_used_is_nobody_elses_disk() -> Result<()> {
    if !can("a_volume_that_was_never_used_is_nobody_elses_disk")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let volume = rig.create("a", 1, mount())?;
    let device = rig.disks[0].path().display().to_string();
    // Another backend, as on another node that the disk was carried to.
    let other = Rig::of(Vec::new(), &[device], "")?;
    is(other.create("b", 1, mount()).map(drop), Code::ResourceExhausted, "a volume that was not used yet: a of")?;
    assert_eq!(other.capacity()?.available_capacity, 0);
    // A create that was cut off before its record leaves a mark alone: the disk is free for the next one.
    let root = rig.host.setup().root("disks");
    rig.host.kill()?;
    fs::remove_file(root.join(".dunnage/volumes/a"))?;
    rig.restart()?;
    let next = rig.create("c", 1, mount())?;
    rig.bring(&next)?;
    rig.take(&next)?;
    is(rig.client.node_stage_volume(volume.stage()), Code::NotFound, "")?;
    rig.delete(&next)?;
    rig.wait_for_free(1)
}

#[test]
fn a_disk_that_carries_somebody_elses_data_by_now_is_neither_used_nor_wiped() -> Result<()> {
    if !can("a_disk_that_carries_somebody_elses_data_by_now_is_neither_used_nor_wiped")? {
        return Ok(());
    }
    let rig = Rig::on(1, "")?;
    let path = rig.disks[0].path().to_owned();
    let device = path.display().to_string();
    // Before it was used.
    let volume = rig.create("a", 1, mount())?;
    run("mkfs.ext4", &["-q", "-F", &device])?;
    is(rig.bring(&volume), Code::FailedPrecondition, "which the volume is not known to have written")?;
    is(rig.delete(&volume), Code::FailedPrecondition, "which the volume is not known to have written")?;
    ensure!(byte(&path, 1080)? == 0x53, "the file system is gone");
    rig.disks[0].wipe()?;
    rig.bring(&volume)?;
    rig.take(&volume)?;
    // Seen once more, it is known.
    rig.bring(&volume)?;
    rig.take(&volume)?;
    run("mkfs.ext4", &["-q", "-F", &device])?;
    is(rig.bring(&volume), Code::FailedPrecondition, "has not its file system")?;
    is(rig.delete(&volume), Code::FailedPrecondition, "has not its file system")?;
    ensure!(byte(&path, 1080)? == 0x53, "the file system is gone");
    // A disk that was wiped by hand is no longer in the way of the delete; nor is it used as if it were new.
    rig.disks[0].wipe()?;
    is(rig.bring(&volume), Code::FailedPrecondition, "has not its file system")?;
    rig.delete(&volume)?;
    rig.wait_for_free(1)
}

#[test]
fn what_is_left_on_a_disk_is_shown_to_no_raw_volume() -> Result<()> {
    if !can("what_is_left_on_a_disk_is_shown_to_no_raw_volume")? {
        return Ok(());
    }
    for wipe in ["signatures", "discard"] {
        let rig = Rig::on(1, &format!("wipe: {wipe}"))?;
        is(rig.create("raw", 1, block()).map(drop), Code::InvalidArgument, "")?;
        let volume = rig.create("a", 1, mount())?;
        rig.bring(&volume)?;
        fs::write(volume.target.join("data"), vec![7; 48 << 20])?;
        rig.take(&volume)?;
        rig.delete(&volume)?;
        rig.wait_for_free(1)?;
        let left = byte(rig.disks[0].path(), MIDDLE)?;
        ensure!((wipe == "signatures") == (left == 7), "{wipe}: {left} is in the middle");
        let volume = rig.create("a", 1, mount())?;
        rig.bring(&volume)?;
        let names: Vec<_> = fs::read_dir(&volume.target)?.flatten().map(|one| one.file_name()).collect();
        ensure!(names == ["lost+found"], "{names:?}");
        rig.take(&volume)?;
    }
    ensure!(Path::new("/dev").exists());
    Ok(())
}
