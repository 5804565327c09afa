//! Disks that are being wiped, and what keeps one from being wiped that is somebody else's by now.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{MIB, block, mount, run, wait_until};
use rustix::fs::FlockOperation;
use tonic::Code;

use super::{LIMIT, MIDDLE, Rig, SIZE, byte, can, is, write};

/// Where the mark is.
const MARK: i64 = 3 * MIB;

/// A lock that keeps a disk from being wiped, until it is dropped.
fn locked(disk: &Path) -> Result<File> {
    let file = File::open(disk)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

impl Rig {
    fn wiping(&self) -> Result<Vec<PathBuf>> {
        let folder = self.host.setup().root("disks").join("wiping");
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    /// Waits until the log of the host says this.
    fn wait_for_log(&self, said: &str) -> Result<()> {
        self.wait_for_logs(said, 1)
    }

    /// Waits until it has said so as often: it does once after each start.
    fn wait_for_logs(&self, said: &str, times: usize) -> Result<()> {
        let waited = wait_until("the log to say it", LIMIT, || Ok(self.host.log().matches(said).count() >= times));
        waited.with_context(|| format!("{} does not say {said}", self.host.log()))
    }
}

#[test]
fn a_disk_that_is_being_wiped_says_so_to_everybody_and_goes_on_after_a_kill() -> Result<()> {
    if !can("a_disk_that_is_being_wiped_says_so_to_everybody_and_goes_on_after_a_kill")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let path = rig.disks[0].path().to_owned();
    let volume = rig.create("a", 1, block())?;
    rig.bring(&volume)?;
    // Nothing where anybody looks: but for its mark it would be taken for an empty disk.
    write(&volume.target, MIDDLE, &[7])?;
    rig.take(&volume)?;
    let lock = locked(&path)?;
    rig.delete(&volume)?;
    ensure!(byte(&path, MARK)? == b'{', "there is no mark");
    let other = Rig::of(Vec::new(), &[path.display().to_string()], "")?;
    is(other.create("b", 1, mount()).map(drop), Code::ResourceExhausted, "it is being wiped, and was a of")?;
    rig.wait_for_log("a disk cannot be wiped yet")?;
    is(rig.create("b", 1, mount()).map(drop), Code::ResourceExhausted, "it is to be wiped, and cannot be")?;
    rig.host.kill()?;
    drop(lock);
    rig.restart()?;
    rig.wait_for_free(1)?;
    for place in [0, MARK, MIDDLE, SIZE - 1] {
        ensure!(byte(&path, place)? == 0, "the byte at {place} is left");
    }
    assert_eq!(rig.wiping()?.len(), 0);
    Ok(())
}

#[test]
fn a_disk_that_was_used_elsewhere_while_it_was_to_be_wiped_is_left_alone() -> Result<()> {
    if !can("a_disk_that_was_used_elsewhere_while_it_was_to_be_wiped_is_left_alone")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let path = rig.disks[0].path().to_owned();
    let volume = rig.create("a", 1, block())?;
    rig.bring(&volume)?;
    write(&volume.target, 0, &[7])?;
    rig.take(&volume)?;
    let lock = locked(&path)?;
    rig.delete(&volume)?;
    rig.host.kill()?;
    drop(lock);
    // Its file says that wiping has begun, as one that comes from a backup does.
    let file = rig.wiping()?.pop().context("nothing is to be wiped")?;
    ensure!(fs::read_to_string(&file)?.contains("\"stage\":\"begun\""), "{}", fs::read_to_string(&file)?);
    write(&path, MARK, &[0; 4096])?;
    write(&path, MIDDLE, &[9])?;
    rig.restart()?;
    rig.wait_for_log("has lost the mark")?;
    ensure!(byte(&path, 0)? == 7 && byte(&path, MIDDLE)? == 9, "it was wiped");
    // Nor when the disk is put in once more.
    rig.disks[0].unplug()?;
    rig.disks[0].plug()?;
    rig.restart()?;
    rig.wait_for_logs("has lost the mark", 2)?;
    ensure!(byte(rig.disks[0].path(), 0)? == 7, "it was wiped");
    Ok(())
}

#[test]
fn a_raw_volume_that_was_away_when_it_was_deleted_is_never_wiped_and_a_file_that_is_removed_is_obeyed() -> Result<()> {
    if !can("a_raw_volume_that_was_away_when_it_was_deleted_is_never_wiped_and_a_file_that_is_removed_is_obeyed")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let volume = rig.create("a", 1, block())?;
    rig.bring(&volume)?;
    write(&volume.target, MIDDLE, &[7; 512])?;
    write(&volume.target, 0, &[7])?;
    rig.take(&volume)?;
    rig.disks[0].unplug()?;
    rig.delete(&volume)?;
    rig.disks[0].plug()?;
    rig.restart()?;
    rig.wait_for_log("has lost the mark")?;
    ensure!(byte(rig.disks[0].path(), 0)? == 7, "it was wiped");
    // The admin wants it left alone, and uses it: it is not even blank that is wiped.
    fs::remove_file(rig.wiping()?.pop().context("nothing is to be wiped")?)?;
    write(rig.disks[0].path(), 0, &[0])?;
    rig.wait_for_log("its file was removed from the folder wiping")?;
    ensure!(byte(rig.disks[0].path(), MIDDLE)? == 7, "it was wiped");
    Ok(())
}

#[test]
fn a_partition_within_a_volume_is_never_another_volume() -> Result<()> {
    if !can("a_partition_within_a_volume_is_never_another_volume")? {
        return Ok(());
    }
    let disks = dunnage_test_common::ScsiDisk::lend(1)?;
    let path = disks[0].path().to_owned();
    let patterns = [path.display().to_string(), format!("{}[1-9]", path.display())];
    let rig = Rig::of(disks, &patterns, "partitions: true")?;
    let volume = rig.create("raw", 1, block())?;
    rig.bring(&volume)?;
    let parts = rig.disks[0].part(&[40])?;
    rig.take(&volume)?;
    is(rig.create("x", 1, mount()).map(drop), Code::ResourceExhausted, "a part or the whole of one")?;
    assert_eq!(rig.capacity()?.available_capacity, 0);
    let lock = locked(&path)?;
    rig.delete(&volume)?;
    ensure!(parts[0].exists(), "the partition is gone before the disk is wiped");
    is(rig.create("x", 1, mount()).map(drop), Code::ResourceExhausted, "wiped")?;
    assert_eq!(rig.capacity()?.available_capacity, 0);
    drop(lock);
    rig.wait_for_free(1)?;
    ensure!(!parts[0].exists(), "the partition is left");
    Ok(())
}

#[test]
fn a_raw_volume_whose_disk_is_another_volume_by_now_is_neither_used_nor_wiped() -> Result<()> {
    if !can("a_raw_volume_whose_disk_is_another_volume_by_now_is_neither_used_nor_wiped")? {
        return Ok(());
    }
    let rig = Rig::on(1, "")?;
    let path = rig.disks[0].path().to_owned();
    let volume = rig.create("a", 1, block())?;
    rig.bring(&volume)?;
    write(&volume.target, 0, &[7])?;
    rig.take(&volume)?;
    // Emptied, and taken by another node.
    run("blkdiscard", &["--force", "--zeroout", &path.display().to_string()])?;
    let other = Rig::of(Vec::new(), &[path.display().to_string()], "")?;
    other.create("b", 1, mount())?;
    is(rig.bring(&volume), Code::FailedPrecondition, "is another volume now, b of")?;
    is(rig.delete(&volume), Code::FailedPrecondition, "is another volume now, b of")?;
    ensure!(byte(&path, MARK)? == b'{', "the mark is gone");
    Ok(())
}

#[test]
fn a_file_system_that_an_admin_made_on_the_disk_of_a_volume_is_not_the_volumes() -> Result<()> {
    if !can("a_file_system_that_an_admin_made_on_the_disk_of_a_volume_is_not_the_volumes")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    let path = rig.disks[0].path().to_owned();
    let volume = rig.create("a", 1, mount())?;
    rig.bring(&volume)?;
    rig.take(&volume)?;
    ensure!(rig.record("a")?.contains("\"content\":\"ext4:"), "{}", rig.record("a")?);
    // As after a kill before it was known what the volume has there, and a boot.
    rig.host.kill()?;
    let record = rig.host.setup().root("disks").join(".dunnage/volumes/a");
    let kept = fs::read_to_string(&record)?;
    let start = kept.find(",\"content\"").context("no content")?;
    let end = start + kept[start..].find('}').context("no end")?;
    fs::write(&record, format!("{}{}", &kept[..start], &kept[end..]))?;
    run("mkfs.ext4", &["-q", "-F", &path.display().to_string()])?;
    rig.restart()?;
    is(rig.bring(&volume), Code::FailedPrecondition, "it was never seen that the volume made it")?;
    ensure!(!rig.record("a")?.contains("content"), "it was adopted: {}", rig.record("a")?);
    Ok(())
}

#[test]
fn a_disk_that_was_left_unzeroed_is_no_raw_volume_when_the_configuration_changes() -> Result<()> {
    if !can("a_disk_that_was_left_unzeroed_is_no_raw_volume_when_the_configuration_changes")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "wipe: signatures")?;
    let volume = rig.create("a", 1, mount())?;
    rig.bring(&volume)?;
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.wait_for_free(1)?;
    let config = rig.host.setup().config();
    let text = fs::read_to_string(&config)?;
    ensure!(text.contains("wipe: signatures"), "{text}");
    fs::write(&config, text.replace("wipe: signatures", "wipe: zero"))?;
    rig.restart()?;
    is(rig.create("raw", 1, block()).map(drop), Code::ResourceExhausted, "what a volume has left is on it still")?;
    // One with a file system is wiped by zeros after it, and then it may be raw.
    let volume = rig.create("b", 1, mount())?;
    rig.delete(&volume)?;
    rig.wait_for_free(1)?;
    rig.create("raw", 1, block())?;
    Ok(())
}
