//! Nobody reads what another has written.

use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, block, covers, mount};
use tonic::Code;

use super::{Rig, bytes_of, can, is};

/// Writes over the whole group, as one who was there before.
fn soil(rig: &Rig) -> Result<()> {
    let name = rig.group.name();
    rig.group.lvm(&[
        "lvcreate",
        "-qq",
        "--wipesignatures",
        "n",
        "--zero",
        "n",
        "--extents",
        "100%FREE",
        "-n",
        "old",
        name,
    ])?;
    let device = fs::File::options().write(true).open(format!("/dev/mapper/{name}-old"))?;
    let piece = vec![0xa5; MIB as usize];
    let mut place = 0;
    while device.write_all_at(&piece, place).is_ok() {
        place += MIB as u64;
    }
    device.sync_all()?;
    drop(device);
    rig.group.lvm(&["lvremove", "-qq", &format!("{name}/old")])?;
    Ok(())
}

#[test]
fn a_new_volume_and_what_it_grows_by_read_zero() -> Result<()> {
    if !can("a_new_volume_and_what_it_grows_by_read_zero")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128], "")?;
    soil(&rig)?;
    let volume = rig.create("a", 32 * MIB, block())?;
    rig.bring(&volume)?;
    ensure!(bytes_of(&volume)?.iter().all(|byte| *byte == 0), "a new volume has somebody's bytes");
    rig.grow(&volume, 64 * MIB)?;
    let bytes = bytes_of(&volume)?;
    ensure!(
        bytes.len() == 64 * MIB as usize && bytes.iter().all(|byte| *byte == 0),
        "it has grown by somebody's bytes"
    );
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])
}

#[test]
fn without_wiping_there_is_no_raw_block_and_no_file_system_of_an_earlier_volume() -> Result<()> {
    if !can("without_wiping_there_is_no_raw_block_and_no_file_system_of_an_earlier_volume")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128], "wipe: none")?;
    is(rig.create("raw", 32 * MIB, block()), Code::InvalidArgument, "")?;
    for turn in 0..2 {
        let volume = rig.create("a", 32 * MIB, mount())?;
        rig.bring(&volume)?;
        let left: Vec<_> = fs::read_dir(&volume.target)?.flatten().map(|one| one.file_name()).collect();
        ensure!(left == ["lost+found"], "turn {turn}: {left:?}");
        fs::write(volume.target.join("data"), "somebody's")?;
        rig.take(&volume)?;
        rig.delete(&volume)?;
    }
    soil(&rig)?;
    let volume = rig.create("a", 32 * MIB, mount())?;
    rig.bring(&volume)?;
    rig.take(&volume)
}

/// A logical volume as a create leaves it that is cut off while it wipes.
fn leave_unfinished(rig: &Rig, name: &str) -> Result<()> {
    let tags = ["--addtag", "dunnage.unfinished", "--addtag", "dunnage.form=1"];
    let fixed = ["lvcreate", "-qq", "--wipesignatures", "n", "--zero", "n", "--size", "32M", "--name", name];
    rig.group.lvm(&[&fixed[..], &tags, &[rig.group.name()]].concat()).map(drop)
}

#[test]
fn a_volume_that_was_cut_off_while_it_was_wiped_is_wiped_by_the_retry() -> Result<()> {
    if !can("a_volume_that_was_cut_off_while_it_was_wiped_is_wiped_by_the_retry")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128], "")?;
    soil(&rig)?;
    leave_unfinished(&rig, "vol-a")?;
    covers("lvm", "CreateVolume", Fault::Killed);
    let volume = rig.create("a", 32 * MIB, block())?;
    rig.bring(&volume)?;
    ensure!(bytes_of(&volume)?.iter().all(|byte| *byte == 0), "it has somebody's bytes");
    // The same for what it grows by.
    leave_unfinished(&rig, "wipe-vol-a")?;
    covers("lvm", "ControllerExpandVolume", Fault::Killed);
    rig.grow(&volume, 64 * MIB)?;
    ensure!(bytes_of(&volume)?.iter().all(|byte| *byte == 0), "it has grown by somebody's bytes");
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])
}

#[test]
fn what_nobody_asks_for_again_goes_at_the_next_start() -> Result<()> {
    if !can("what_nobody_asks_for_again_goes_at_the_next_start")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[128], "")?;
    let before = rig.available()?;
    leave_unfinished(&rig, "vol-a")?;
    leave_unfinished(&rig, "wipe-vol-b")?;
    rig.group.lvm(&["lvcreate", "-qq", "--size", "4M", "--name", "theirs", rig.group.name()])?;
    rig.restart()?;
    assert_eq!(rig.group.volumes()?, ["theirs"]);
    assert!(rig.client.list_volumes(Default::default())?.entries.is_empty());
    assert_eq!(rig.available()?, before - 4 * MIB);
    Ok(())
}
