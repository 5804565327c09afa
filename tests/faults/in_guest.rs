//! Disks that fail beneath a root, which need a kernel with a device mapper.

use std::fs;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Failing, Fault, FaultyDisk, MIB, Need, Volume, can_run, create, mount, run};
use rustix::mount::{UnmountFlags, unmount};
use tonic::Code;

use crate::{DUNNAGE, FAULTY, SOUND, setup, volume};

#[test]
fn a_root_whose_disk_fails_makes_nothing_loses_nothing_and_is_used_again() -> Result<()> {
    let test = "a_root_whose_disk_fails_makes_nothing_loses_nothing_and_is_used_again";
    if !can_run(test, &[Need::Root, Need::Guest, Need::Program("mkfs.ext4"), Need::Program("dmsetup")])? {
        return Ok(());
    }
    for (driver, rest) in [("dir", "quota: none"), ("image", "")] {
        for (failing, fault) in [(Failing::Writes, Fault::WriteErrors), (Failing::All, Fault::ReadErrors)] {
            fails(driver, rest, failing, fault).with_context(|| format!("{driver}, {fault:?}"))?;
        }
    }
    Ok(())
}

fn fails(driver: &str, rest: &str, failing: Failing, fault: Fault) -> Result<()> {
    let setup = setup(driver, rest)?;
    let disk = FaultyDisk::new(&setup.scratch().path().join("disk"), 128)?;
    let (path, root) = (disk.path()?, setup.root("faulty"));
    run("mkfs.ext4", &["-q", "-F", &path])?;
    let place = root.display().to_string();
    run("mount", &[&path, &place])?;
    let mut host = setup.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let (kept, other) = (volume(&host, &client, "kept", mount())?, volume(&host, &client, "other", mount())?);
    bring(&client, &kept)?;
    fs::write(kept.target.join("data"), "data")?;
    run("sync", &["--file-system", &kept.target.display().to_string()])?;
    take(&client, &kept)?;

    disk.fail_from(0, failing)?;
    let sick = client.under(driver, fault);
    let refused = sick.create_volume(create("new", 16 * MIB, mount())).expect_err("made on a disk that fails");
    ensure!(refused.message().contains(&place) || refused.message().contains("faulty"), "{refused:?}");
    // Nothing is said to be gone, whether or not it can be read still.
    let deleted = sick.delete_volume(other.delete()).map(drop);
    let staged = if kept.staging.is_some() { sick.node_stage_volume(kept.stage()).map(drop) } else { Ok(()) };
    for answer in [&deleted, &staged, &sick.list_volumes(Default::default()).map(drop)] {
        ensure!(answer.as_ref().err().is_none_or(|status| status.code() != Code::NotFound), "{answer:?}");
    }
    if kept.staging.is_some() {
        sick.node_unstage_volume(kept.unstage())?;
    }
    host.client(SOUND)?.create_volume(create("a", MIB, mount()))?;
    host.kill()?;
    disk.heal()?;
    unmount(&root, UnmountFlags::DETACH)?;
    run("mount", &[&path, &place])?;

    host.restart()?;
    let client = host.client(FAULTY)?.under(driver, fault);
    let listed = client.list_volumes(Default::default())?.entries.into_iter();
    let listed: Vec<_> = listed.filter_map(|entry| entry.volume).map(|volume| volume.volume_id).collect();
    // The delete may have been done, and is if it was answered so; the create was not, and may be.
    ensure!(deleted.is_err() || !listed.contains(&other.id()), "it was deleted, and is back: {listed:?}");
    bring(&client, &kept)?;
    assert_eq!(fs::read_to_string(kept.target.join("data"))?, "data");
    take(&client, &kept)?;
    let made = client.create_volume(create("new", 16 * MIB, mount()))?.volume.context("no volume")?;
    client.delete_volume(csi::DeleteVolumeRequest { volume_id: made.volume_id, ..Default::default() })?;
    client.delete_volume(other.delete())?;
    client.delete_volume(kept.delete())?;
    let listed = client.list_volumes(Default::default())?.entries;
    ensure!(listed.is_empty(), "{listed:?}");
    Ok(())
}

fn bring(client: &Client, volume: &Volume) -> Result<()> {
    if volume.staging.is_some() {
        client.node_stage_volume(volume.stage())?;
    }
    client.node_publish_volume(volume.publish())?;
    Ok(())
}

fn take(client: &Client, volume: &Volume) -> Result<()> {
    client.node_unpublish_volume(volume.unpublish())?;
    if volume.staging.is_some() {
        client.node_unstage_volume(volume.unstage())?;
    }
    Ok(())
}
