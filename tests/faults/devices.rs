//! What is on a device that is not ours, programs that fail, and records of another boot.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, block, loop_devices_beneath, mount, mounts_beneath};
use rustix::mount::UnmountFlags;
use tonic::Code;

use crate::{DUNNAGE, FAULTY, needs_root, setup, volume};

fn image(root: &Path, key: &str) -> PathBuf {
    root.join("images").join(key)
}

#[test]
fn a_device_with_anything_on_it_is_never_formatted() -> Result<()> {
    if !needs_root("a_device_with_anything_on_it_is_never_formatted")? {
        return Ok(());
    }
    let host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    for (name, at, text) in [
        ("luks", 0, &b"LUKS\xba\xbe\0\x02"[..]),
        ("swap", 4086, b"SWAPSPACE2"),
        ("lvm", 512, b"LABELONE"),
        ("partitions", 510, b"\x55\xaa"),
        ("backup-gpt", (16 * MIB - 512) as u64, b"EFI PART"),
        ("nonsense", 70_000, b"somebody's data"),
    ] {
        let volume = volume(&host, &client, name, mount())?;
        let path = image(&host.setup().root("faulty"), name);
        let mut file = File::options().write(true).open(&path)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(text)?;
        drop(file);
        let before = fs::read(&path)?;
        for _ in 0..2 {
            let sick = client.under("image", Fault::ForeignData);
            let status = sick.node_stage_volume(volume.stage()).expect_err("it was staged");
            assert_eq!(status.code(), Code::FailedPrecondition, "{name}: {status:?}");
            ensure!(status.message().contains("formatted"), "{name}: {status:?}");
        }
        ensure!(fs::read(&path)? == before, "{name}: the device was written to");
        ensure!(loop_devices_beneath(host.setup().scratch().path()).is_empty(), "{name}: a loop device is left");
        ensure!(!volume.staging.as_ref().unwrap().exists(), "{name}: a folder is left");
        client.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn an_image_that_was_cut_is_not_staged() -> Result<()> {
    if !needs_root("an_image_that_was_cut_is_not_staged")? {
        return Ok(());
    }
    let host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = volume(&host, &client, "a", block())?;
    let path = image(&host.setup().root("faulty"), "a");
    File::options().write(true).open(&path)?.set_len(MIB as u64)?;
    let sick = client.under("image", Fault::DamagedRecord);
    let status = sick.node_stage_volume(volume.stage()).expect_err("it was staged");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    ensure!(status.message().contains("cut") && status.message().contains("backup"), "{status:?}");
    Ok(())
}

#[test]
fn a_mkfs_that_fails_is_quoted_leaves_nothing_and_is_run_again() -> Result<()> {
    if !needs_root("a_mkfs_that_fails_is_quoted_leaves_nothing_and_is_run_again")? {
        return Ok(());
    }
    let setup = setup("image", "")?;
    let tools = setup.scratch().folder("tools")?;
    let program = tools.join("mkfs.ext4");
    // It writes a part of a file system first, as one does that is out of memory.
    fs::write(
        &program,
        "#!/bin/sh\nfor to; do :; done\nprintf junk | dd of=$to bs=1k seek=9 conv=notrunc 2>&-\necho out of luck >&2\nexit 1\n",
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let host = setup.env("PATH", path).start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = volume(&host, &client, "a", mount())?;
    let sick = client.under("image", Fault::ProgramFails);
    let status = sick.node_stage_volume(volume.stage()).expect_err("it was staged");
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    ensure!(status.message().contains("mkfs.ext4") && status.message().contains("out of luck"), "{status:?}");
    let folder = host.setup().scratch().path();
    ensure!(mounts_beneath(folder)?.is_empty() && loop_devices_beneath(folder).is_empty(), "something is left");
    fs::remove_file(&program)?;
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    Ok(())
}

#[test]
fn after_a_reboot_a_volume_is_not_published_from_an_empty_folder_and_has_its_data_once_staged() -> Result<()> {
    if !needs_root("after_a_reboot_a_volume_is_not_published_from_an_empty_folder_and_has_its_data_once_staged")? {
        return Ok(());
    }
    let mut host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let volume = volume(&host, &client, "a", mount())?;
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    fs::write(volume.target.join("data"), "data")?;
    host.kill()?;
    // What a reboot does: mounts and devices go, the folders and the records of that boot stay.
    for point in mounts_beneath(volume.target.parent().unwrap())?.iter().rev() {
        rustix::mount::unmount(point, UnmountFlags::empty())?;
    }
    for device in loop_devices_beneath(host.setup().scratch().path()) {
        ensure!(std::process::Command::new("/sbin/losetup").arg("-d").arg(device).status()?.success());
    }
    let state = host.setup().scratch().path().join("state/node");
    let boot = fs::read_dir(&state)?.map(|one| one.unwrap().path()).find(|path| path.is_dir()).expect("no records");
    fs::rename(&boot, state.join("boot-another"))?;
    host.restart()?;
    let client = host.client(FAULTY)?.under("image", Fault::Rebooted);
    let status = client.node_publish_volume(volume.publish()).expect_err("an empty folder was published");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    Ok(())
}
