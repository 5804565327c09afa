//! What is told of the health of volumes and stores while something is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Volume, block, can_run, create, filesystem, loop_devices_beneath, mount, mount_disk,
};
use rustix::mount::UnmountFlags;

use crate::{DUNNAGE, FAULTY, SOUND, needs_root, setup};

fn run(program: &str, arguments: &[&str], at: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).arg(at).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The reasons in what is told of a volume, each of which is one that it cannot be used for, with a message.
fn reasons(client: &Client, volume: &Volume) -> Result<Vec<String>> {
    let request = csi::NodeGetVolumeHealthRequest { volume_id: volume.id(), ..Default::default() };
    let health = client.node_get_volume_health(request)?.volume_health.context("no health")?;
    assert_eq!(health.volume_id, volume.id());
    for one in &health.health_statuses {
        assert_eq!(one.status(), csi::VolumeHealthErrorType::Inaccessible, "{one:?}");
        ensure!(one.message.contains('/'), "no path in {one:?}");
    }
    Ok(health.health_statuses.into_iter().map(|one| one.reason).collect())
}

/// What is told of the stores behind a plugin.
fn storage(client: &Client) -> Result<String> {
    let health = client.node_get_storage_health(Default::default())?.backend_health;
    for one in &health {
        assert_eq!(one.status(), csi::StorageHealthErrorType::StorageUnreachable, "{one:?}");
    }
    Ok(health.into_iter().map(|one| one.message).collect())
}

/// A volume that is staged and published.
fn used(host: &Host, client: &Client, capability: csi::VolumeCapability) -> Result<Volume> {
    let made = client.create_volume(create("a", 320 * MIB, capability.clone()))?.volume.context("no volume")?;
    let volume = Volume::new(made, capability, &host.setup().scratch().path().join("pods"), true);
    assert_eq!(reasons(client, &volume)?, [""; 0], "a volume that is not here");
    bring(client, &volume)?;
    Ok(volume)
}

fn bring(client: &Client, volume: &Volume) -> Result<()> {
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    assert_eq!(reasons(client, volume)?, [""; 0], "a volume that is well");
    Ok(())
}

fn take(client: &Client, volume: &Volume) -> Result<()> {
    client.node_unpublish_volume(volume.unpublish())?;
    client.node_unstage_volume(volume.unstage())?;
    assert_eq!(reasons(client, volume)?, [""; 0], "a volume that is not here any more");
    Ok(())
}

fn device(host: &Host) -> Result<PathBuf> {
    loop_devices_beneath(host.setup().scratch().path()).into_iter().next().context("no loop device")
}

#[test]
fn each_fault_of_a_file_system_has_its_own_finding_until_it_is_mended() -> Result<()> {
    let test = "each_fault_of_a_file_system_has_its_own_finding_until_it_is_mended";
    if !can_run(test, &[Need::Root, Need::Program("xfs_io")])? {
        return Ok(());
    }
    let host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = used(&host, &client, filesystem("xfs"))?;
    let staging = volume.staging.clone().unwrap();
    rustix::mount::unmount(&volume.target, UnmountFlags::empty())?;
    assert_eq!(reasons(&client, &volume)?, ["TargetMountMissing"]);
    rustix::mount::unmount(&staging, UnmountFlags::empty())?;
    assert_eq!(reasons(&client, &volume)?, ["StagingMountMissing", "TargetMountMissing"]);
    bring(&client, &volume)?;
    run("mount", &["-o", "remount,ro"], &staging)?;
    assert_eq!(reasons(&client, &volume)?, ["FilesystemReadOnly"]);
    run("mount", &["-o", "remount,rw"], &staging)?;
    assert_eq!(reasons(&client, &volume)?, [""; 0]);
    fs::write(volume.target.join("data"), "data")?;
    run("sync", &["-f"], &volume.target)?;
    // What a file system does to itself whose log cannot be written.
    run("xfs_io", &["-x", "-c", "shutdown"], &staging)?;
    let client = client.under("image", Fault::DamagedFileSystem);
    assert_eq!(reasons(&client, &volume)?, ["FilesystemError"]);
    take(&client, &volume)?;
    bring(&client, &volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    take(&client, &volume)
}

#[test]
fn each_fault_of_a_device_has_its_own_finding_until_it_is_mended() -> Result<()> {
    let test = "each_fault_of_a_device_has_its_own_finding_until_it_is_mended";
    if !can_run(test, &[Need::Root, Need::Program("blockdev"), Need::Program("losetup")])? {
        return Ok(());
    }
    let mut host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = used(&host, &client, block())?;
    run("blockdev", &["--setro"], &device(&host)?)?;
    assert_eq!(reasons(&client, &volume)?, ["DeviceReadOnly"]);
    run("blockdev", &["--setrw"], &device(&host)?)?;
    assert_eq!(reasons(&client, &volume)?, [""; 0]);
    run("losetup", &["--detach"], &device(&host)?)?;
    assert_eq!(reasons(&client, &volume)?, ["DeviceGone"]);
    // Known from the records alone, so after a restart too.
    host.restart()?;
    let client = host.client(FAULTY)?.under("image", Fault::StoreGone);
    assert_eq!(reasons(&client, &volume)?, ["DeviceGone"]);
    take(&client, &volume)?;
    bring(&client, &volume)?;
    take(&client, &volume)?;
    // Read-only because it was asked for is well.
    let readonly = csi::NodePublishVolumeRequest { readonly: true, ..volume.publish() };
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(readonly)?;
    assert_eq!(reasons(&client, &volume)?, [""; 0]);
    take(&client, &volume)
}

#[test]
fn a_store_that_cannot_be_read_or_written_is_reported_and_no_other() -> Result<()> {
    if !needs_root("a_store_that_cannot_be_read_or_written_is_reported_and_no_other")? {
        return Ok(());
    }
    for (driver, rest) in [("dir", "quota: none"), ("image", "")] {
        let mut host = setup(driver, rest)?.prepare(DUNNAGE)?;
        let root = host.setup().root("faulty");
        mount_disk(&host.setup().scratch().path().join("disk"), 64, &root)?;
        host.init()?;
        host.restart()?;
        let (client, sound) = (host.client(FAULTY)?, host.client(SOUND)?);
        client.create_volume(create("a", 16 * MIB, mount()))?;
        ensure!(storage(&client)?.is_empty(), "{driver}: {}", storage(&client)?);
        let (marker, away) = (root.join(".dunnage/instance.json"), root.join(".dunnage/away"));
        fs::rename(&marker, &away)?;
        let said = storage(&client)?;
        ensure!(said.contains("backend faulty") && said.contains(marker.to_str().unwrap()), "{driver}: {said}");
        fs::rename(&away, &marker)?;
        ensure!(storage(&client)?.is_empty(), "{driver}: {}", storage(&client)?);
        // What ext4 does to itself after an error of its disk: all is in memory still, and can be read.
        run("mount", &["-o", "remount,abort"], &root)?;
        let client = client.under(driver, Fault::ReadOnlyStore);
        let said = storage(&client)?;
        ensure!(said.contains("backend faulty") && said.contains(root.to_str().unwrap()), "{driver}: {said:?}");
        ensure!(storage(&sound)?.is_empty(), "{}", storage(&sound)?);
    }
    Ok(())
}
