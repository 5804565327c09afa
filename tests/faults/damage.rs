//! Disks that give errors, and file systems that find themselves damaged: what is told of the volumes on them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::VolumeHealthErrorType as Kind;
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Volume, can_run, create, filesystem, mount, mount_new, run, wait_until,
};
use dunnage_testkit::{BadSectors, FuseStore};

use crate::{DUNNAGE, FAULTY, setup};

const PATIENCE: Duration = Duration::from_secs(60);

/// One that is told: how bad it is, its reason and its message.
type Told = (Kind, String, String);

fn told(health: Option<csi::VolumeHealth>) -> Vec<Told> {
    let entries = health.unwrap_or_default().health_statuses.into_iter();
    entries.map(|entry| (entry.status(), entry.reason, entry.message)).collect()
}

fn by_node(client: &Client, volume: &Volume) -> Result<Vec<Told>> {
    let request = csi::NodeGetVolumeHealthRequest { volume_id: volume.id(), ..Default::default() };
    Ok(told(client.node_get_volume_health(request)?.volume_health))
}

fn by_controller(client: &Client, volume_id: &str) -> Result<Vec<Told>> {
    let request = csi::ControllerGetVolumeHealthRequest { volume_id: volume_id.into(), ..Default::default() };
    Ok(told(client.controller_get_volume_health(request)?.volume_health))
}

/// Waits until this finding is told, and it alone: what a file system notes it may note a moment later.
fn is_told(what: &str, wanted: (Kind, &str, &str), ask: impl Fn() -> Result<Vec<Told>>) -> Result<()> {
    let mut last = Vec::new();
    let waited = wait_until(what, PATIENCE, || {
        last = ask()?;
        Ok(!last.is_empty())
    });
    let (kind, reason, words) = wanted;
    let matches =
        matches!(&last[..], [(one, other, message)] if (*one, &**other) == (kind, reason) && message.contains(words));
    ensure!(matches, "{what}: wanted {wanted:?}, told {last:?}");
    waited
}

fn bring(client: &Client, volume: &Volume) -> Result<()> {
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    Ok(())
}

fn take(client: &Client, volume: &Volume) -> Result<()> {
    client.node_unpublish_volume(volume.unpublish())?;
    client.node_unstage_volume(volume.unstage())?;
    Ok(())
}

/// A volume of this file system with a folder that is in no memory: it was mounted anew since it was made.
fn with_unread_folder(host: &Host, client: &Client, fs_type: &str) -> Result<Volume> {
    let capability = filesystem(fs_type);
    let made = client.create_volume(create(fs_type, 320 * MIB, capability.clone()))?.volume.context("no volume")?;
    let volume = Volume::new(made, capability, &host.setup().scratch().path().join("pods").join(fs_type), true);
    bring(client, &volume)?;
    make_folder(&volume.target)?;
    take(client, &volume)?;
    Ok(volume)
}

fn make_folder(above: &Path) -> Result<()> {
    fs::create_dir(above.join("folder"))?;
    // More than lies in the inode itself.
    for number in 0..500 {
        fs::write(above.join(format!("folder/with-a-name-of-some-length-{number}")), [1; 5000])?;
    }
    Ok(())
}

fn read_folder(above: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(above.join("folder"))? {
        fs::read(entry?.path())?;
    }
    Ok(())
}

fn all_of(file: &Path) -> Result<BadSectors> {
    Ok(BadSectors { inode: fs::metadata(file)?.ino(), from: 0 })
}

#[test]
fn errors_of_the_disk_beneath_a_volume_are_told_until_somebody_has_seen_to_them() -> Result<()> {
    let test = "errors_of_the_disk_beneath_a_volume_are_told_until_somebody_has_seen_to_them";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.btrfs")])? {
        return Ok(());
    }
    let mut host = setup("image", "")?.prepare(DUNNAGE)?;
    let root = host.setup().root("faulty");
    let store = FuseStore::mount(&root)?;
    host.init()?;
    host.restart()?;
    let client = host.client(FAULTY)?;
    for (fs_type, wanted) in [
        ("ext4", (Kind::DataLoss, "FilesystemDamaged", "e2fsck")),
        ("btrfs", (Kind::Degraded, "DeviceErrors", "read_errs of its device 1")),
    ] {
        let volume = with_unread_folder(&host, &client, fs_type)?;
        bring(&client, &volume)?;
        assert_eq!(by_node(&client, &volume)?, [], "{fs_type}: nobody has read anything");
        store.fail_reads(all_of(&root.join("images").join(fs_type))?);
        ensure!(read_folder(&volume.target).is_err(), "{fs_type}: the disk can be read: the test does not test");
        let sick = client.under("image", Fault::ReadErrors);
        is_told(fs_type, wanted, || by_node(&sick, &volume))?;
        store.fail_reads(None);
        is_told(fs_type, wanted, || by_node(&client, &volume))?;
        if fs_type == "btrfs" {
            run("btrfs", &["device", "stats", "-z", volume.target.to_str().unwrap()])?;
        } else {
            take(&client, &volume)?;
            bring(&client, &volume)?;
        }
        assert_eq!(by_node(&client, &volume)?, [], "{fs_type}: it was seen to");
        read_folder(&volume.target)?;
        take(&client, &volume)?;
    }
    Ok(())
}

#[test]
fn an_xfs_that_finds_itself_damaged_is_told_until_it_is_repaired() -> Result<()> {
    let test = "an_xfs_that_finds_itself_damaged_is_told_until_it_is_repaired";
    if !can_run(test, &[Need::Root, Need::Linux(6, 9), Need::Program("xfs_db"), Need::Program("xfs_repair")])? {
        return Ok(());
    }
    let host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = with_unread_folder(&host, &client, "xfs")?;
    bring(&client, &volume)?;
    // By its number alone: looking into the folder would read the inode, and it is the last of many.
    let folder = fs::read_dir(volume.target.join("folder"))?;
    let last = folder.map(|entry| entry.map(|entry| entry.metadata().map(|seen| seen.ino()))).last();
    let last = last.context("the folder is empty")???;
    take(&client, &volume)?;
    let image = host.setup().root("faulty").join("images/xfs");
    let image = image.to_str().unwrap();
    run("xfs_db", &["-x", "-c", &format!("inode {last}"), "-c", "write -d core.magic 0", image])?;
    bring(&client, &volume)?;
    assert_eq!(by_node(&client, &volume)?, [], "nobody has read it");
    ensure!(read_folder(&volume.target).is_err(), "it is not damaged: the test does not test");
    let sick = client.under("image", Fault::DamagedFileSystem);
    is_told("xfs", (Kind::DataLoss, "FilesystemDamaged", "allocation group"), || by_node(&sick, &volume))?;
    take(&client, &volume)?;
    run("xfs_repair", &["-f", image])?;
    bring(&client, &volume)?;
    let _ = read_folder(&volume.target);
    assert_eq!(by_node(&client, &volume)?, [], "it is repaired");
    take(&client, &volume)
}

#[test]
fn errors_of_the_disk_beneath_a_store_are_told_of_each_of_its_volumes_and_by_check() -> Result<()> {
    let test = "errors_of_the_disk_beneath_a_store_are_told_of_each_of_its_volumes_and_by_check";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.btrfs")])? {
        return Ok(());
    }
    for (driver, rest, mkfs, reason) in [
        ("dir", "quota: none", "mkfs.ext4", "StoreDamaged"),
        ("image", "", "mkfs.ext4", "StoreDamaged"),
        ("btrfs", "", "mkfs.btrfs", "StoreDeviceErrors"),
    ] {
        let mut host = setup(driver, rest)?.prepare(DUNNAGE)?;
        let (root, disks) = (host.setup().root("faulty"), host.setup().scratch().path().join("disks"));
        fs::create_dir(&disks)?;
        let store = FuseStore::mount(&disks)?;
        let image = disks.join("disk");
        mount_new(&image, 320, &root, &[mkfs, "-q"], "loop")?;
        host.init()?;
        let beside = root.join(".dunnage/beside");
        fs::create_dir(&beside)?;
        make_folder(&beside)?;
        rustix::mount::unmount(&root, rustix::mount::UnmountFlags::empty())?;
        run("mount", &["-o", "loop", image.to_str().unwrap(), root.to_str().unwrap()])?;
        host.restart()?;
        let client = host.client(FAULTY)?;
        let volumes = ["a", "b"].map(|name| client.create_volume(create(name, 16 * MIB, mount())));
        let volumes = volumes.into_iter().map(|made| made?.volume.context("no volume"));
        let volumes = volumes.collect::<Result<Vec<_>>>()?;
        let pod = host.setup().scratch().path().join("pod");
        let used = Volume::new(volumes[0].clone(), mount(), &pod, false);
        if driver != "image" {
            client.node_publish_volume(used.publish())?;
            assert_eq!(by_node(&client, &used)?, [], "{driver}");
        }
        assert_eq!(by_controller(&client, &volumes[0].volume_id)?, [], "{driver}");
        store.fail_reads(all_of(&image)?);
        ensure!(read_folder(&beside).is_err(), "{driver}: the disk can be read: the test does not test");
        store.fail_reads(None);
        let client = client.under(driver, Fault::ReadErrors);
        for volume in &volumes {
            let ask = || by_controller(&client, &volume.volume_id);
            is_told(driver, (Kind::Degraded, reason, root.to_str().unwrap()), ask)?;
        }
        if driver != "image" {
            is_told(driver, (Kind::Degraded, reason, used.target.to_str().unwrap()), || by_node(&client, &used))?;
            client.node_unpublish_volume(used.unpublish())?;
        }

        let said = String::from_utf8(host.run(&["check"])?.stdout)?;
        ensure!(said.contains("the file system of") && said.contains(root.to_str().unwrap()), "{said}");
    }
    Ok(())
}
