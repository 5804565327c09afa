//! Disks that fail, and disks that are gone.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, Setup, VolumeGroup, create, mount, run, wait_until};
use tonic::Code;

use super::{LIMIT, Rig, can, is};

/// A disk of the device mapper, whose parts can be made to fail.
struct Faulty {
    name: String,
    below: String,
    sectors: u64,
}

impl Faulty {
    fn new(below: &str, sectors: u64) -> Result<Self> {
        let faulty =
            Self { name: format!("faulty-{}", below.trim_start_matches("/dev/")), below: below.into(), sectors };
        let table = format!("0 {sectors} linear {below} 0");
        run("dmsetup", &["create", "--noudevsync", "--noudevrules", &faulty.name, "--table", &table])?;
        Ok(faulty)
    }

    /// The kernel's own name, since there is no udev to make another.
    fn path(&self) -> Result<String> {
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            if fs::read_to_string(entry.path().join("dm/name")).is_ok_and(|name| name.trim() == self.name) {
                return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
            }
        }
        anyhow::bail!("the kernel has no device {}", self.name)
    }

    /// All from this sector on fails; the beginning has LVM's metadata.
    fn fail_from(&self, sector: u64, how: &str) -> Result<()> {
        let Self { below, sectors, .. } = self;
        let rest = sectors - sector;
        let target = match how {
            "error" => format!("{sector} {rest} error"),
            other => format!("{sector} {rest} flakey {below} {sector} 0 1 1 {other}"),
        };
        self.load(&format!("0 {sector} linear {below} 0\n{target}"))
    }

    fn heal(&self) -> Result<()> {
        self.load(&format!("0 {} linear {} 0", self.sectors, self.below))
    }

    fn load(&self, table: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), table)?;
        run("dmsetup", &["suspend", "--noflush", &self.name])?;
        run("dmsetup", &["load", &self.name, &file.path().display().to_string()])?;
        run("dmsetup", &["resume", "--noudevsync", "--noudevrules", &self.name])
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = run("dmsetup", &["remove", "--noudevsync", "--noudevrules", "--force", &self.name]);
    }
}

fn faulty() -> Result<(Rig, Faulty)> {
    let setup = Setup::new()?;
    let file = setup.scratch().path().join("below");
    fs::File::create(&file)?.set_len(256 << 20)?;
    let output = std::process::Command::new("/sbin/losetup").args(["--find", "--show"]).arg(&file).output()?;
    let below = String::from_utf8(output.stdout)?.trim().to_owned();
    let disk = Faulty::new(&below, 256 << 11)?;
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
    disk.fail_from(DATA, "error_writes")?;
    is(rig.create("a", 64 * MIB, mount()), Code::Internal, "cannot zero")?;
    disk.heal()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    // While it is looked at.
    disk.fail_from(DATA, "error")?;
    is(rig.client.node_stage_volume(volume.stage()), Code::Internal, "")?;
    // While it is formatted.
    disk.fail_from(DATA, "error_writes")?;
    is(rig.client.node_stage_volume(volume.stage()), Code::Internal, "")?;
    disk.heal()?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    rig.take(&volume)?;
    // While it is mounted, with data on it.
    disk.fail_from(DATA, "error")?;
    ensure!(rig.client.node_stage_volume(volume.stage()).is_err(), "it was staged");
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
    disk.load(&format!("0 {} error", disk.sectors))?;
    rig.take(&volume)?;
    ensure!(rig.group.active()?.is_empty(), "{:?} is left", rig.group.active()?);
    let found = rig.client.delete_volume(volume.delete()).expect_err("it was deleted");
    ensure!(found.code() != Code::NotFound, "{found:?}");
    // What was read before is good for a moment.
    wait_until("the group to be looked at again", LIMIT, || Ok(rig.client.list_volumes(Default::default()).is_err()))?;
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
    assert_eq!(rig.client.list_volumes(Default::default())?.entries.len(), 3);
    is(rig.create("new", 16 * MIB, mount()), Code::FailedPrecondition, "are missing")?;
    is(rig.client.delete_volume(large.delete()), Code::FailedPrecondition, "are missing")?;
    is(rig.client.node_stage_volume(large.stage()), Code::FailedPrecondition, "lost a disk with data")?;
    for (volume, wanted) in [(&large, &["DiskMissing"][..]), (&mirrored, &["RaidDegraded"]), (&small, &[])] {
        rig.wait_for_health(&volume.id(), wanted)?;
    }
    rig.bring(&small)?;
    rig.take(&small)?;
    rig.bring(&mirrored)?;
    rig.take(&mirrored)?;
    // Without all of its disks nothing is known of it.
    let first = rig.group.devices()[0].clone();
    fs::rename(&first, format!("{first}.away"))?;
    wait_until("the group to be looked at again", LIMIT, || Ok(rig.client.list_volumes(Default::default()).is_err()))?;
    is(rig.client.delete_volume(small.delete()), Code::FailedPrecondition, "is a disk missing?")?;
    is(rig.client.node_stage_volume(small.stage()), Code::FailedPrecondition, "is a disk missing?")?;
    fs::rename(format!("{first}.away"), &first)?;
    fs::rename(&away, &lost)?;
    rig.restart()?;
    rig.bring(&large)?;
    rig.take(&large)
}
