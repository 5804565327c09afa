//! Roots that are not ours, not there, or not ours alone.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, Setup, create, mount};
use rustix::mount::{MountFlags, UnmountFlags, mount_remount};

use crate::{DUNNAGE, FAULTY, is_reported, needs_root, setup};

#[test]
fn a_root_without_a_marker_is_not_served_until_it_is_marked() -> Result<()> {
    if !needs_root("a_root_without_a_marker_is_not_served_until_it_is_marked")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    ensure!(host.run(&["init", "sound"])?.status.success());
    host.spawn()?;
    is_reported(&mut host, &["no marker", "dunnage init", "is not mounted"])?;
    host.init()?;
    host.wait_for(FAULTY)
}

#[test]
fn a_root_of_another_driver_is_not_served() -> Result<()> {
    if !needs_root("a_root_of_another_driver_is_not_served")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    host.init()?;
    let config = fs::read_to_string(host.setup().config())?;
    fs::write(
        host.setup().config(),
        config.replacen("driver: dir", "driver: image", 1).replacen("    quota: none\n", "", 1),
    )?;
    ensure!(!host.run(&["init"])?.status.success(), "init took a root of another driver");
    host.spawn()?;
    is_reported(&mut host, &["root of the driver", "dir", "image", "correct"])
}

#[test]
fn a_root_whose_disk_comes_late_is_served_then_with_all_its_volumes() -> Result<()> {
    if !needs_root("a_root_whose_disk_comes_late_is_served_then_with_all_its_volumes")? {
        return Ok(());
    }
    let mut host = setup("image", "")?.start(DUNNAGE)?;
    let made = host.client(FAULTY)?.create_volume(create("a", 16 * MIB, mount()))?;
    host.kill()?;
    let root = host.setup().root("faulty");
    let away = root.with_file_name("away");
    fs::rename(&root, &away)?;
    host.spawn()?;
    is_reported(&mut host, &["does not exist", "mount its disk"])?;
    // The folder that a disk is mounted on is there without the disk too: it is not taken for an empty root.
    fs::create_dir(&root)?;
    host.wait_for_log("no marker")?;
    fs::remove_dir(&root)?;
    fs::rename(&away, &root)?;
    host.wait_for(FAULTY)?;
    assert_eq!(host.client(FAULTY)?.create_volume(create("a", 16 * MIB, mount()))?, made);
    Ok(())
}

#[test]
fn a_read_only_root_is_not_served_until_it_is_writable() -> Result<()> {
    if !needs_root("a_read_only_root_is_not_served_until_it_is_writable")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    let root = host.setup().root("faulty");
    rustix::mount::mount("disk", &root, "tmpfs", MountFlags::empty(), c"size=16m")?;
    host.init()?;
    mount_remount(&root, MountFlags::RDONLY, c"")?;
    host.spawn()?;
    is_reported(&mut host, &["read-only", "remount"])?;
    mount_remount(&root, MountFlags::empty(), c"")?;
    host.wait_for(FAULTY)?;
    host.kill()?;
    rustix::mount::unmount(&root, UnmountFlags::empty())?;
    Ok(())
}

#[test]
fn a_root_that_becomes_read_only_refuses_creates_and_serves_what_is_there() -> Result<()> {
    if !needs_root("a_root_that_becomes_read_only_refuses_creates_and_serves_what_is_there")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    let root = host.setup().root("faulty");
    dunnage_test_common::mount_disk(&host.setup().scratch().path().join("disk"), 64, &root)?;
    host.init()?;
    host.restart()?;
    let client = host.client(FAULTY)?;
    client.create_volume(create("a", MIB, mount()))?;
    // What ext4 does to itself after an error of its disk.
    let aborted = std::process::Command::new("mount").args(["-o", "remount,abort"]).arg(&root).status()?;
    ensure!(aborted.success(), "cannot abort the file system");
    let client = client.under("dir", Fault::ReadOnlyStore);
    let status = client.create_volume(create("b", MIB, mount())).expect_err("a create without a disk");
    ensure!(status.code() == tonic::Code::FailedPrecondition || status.code() == tonic::Code::Internal, "{status:?}");
    ensure!(status.message().contains(root.to_str().unwrap()), "{status:?}");
    assert_eq!(client.list_volumes(Default::default())?.entries.len(), 1);
    Ok(())
}

#[test]
fn one_root_is_one_hosts() -> Result<()> {
    if !needs_root("one_root_is_one_hosts")? {
        return Ok(());
    }
    let mut first = Setup::new()?.backend("faulty", "dir", "quota: none")?.start(DUNNAGE)?;
    let root = first.setup().root("faulty");
    let mut second = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    let own = second.setup().root("faulty").display().to_string();
    let config = fs::read_to_string(second.setup().config())?.replace(&own, root.to_str().unwrap());
    fs::write(second.setup().config(), config)?;
    second.init()?;
    second.spawn()?;
    is_reported(&mut second, &["served already"])?;
    first.client(FAULTY)?.create_volume(create("a", MIB, mount()))?;
    // It takes over what the first one leaves.
    first.kill()?;
    second.wait_for(FAULTY)?;
    assert_eq!(second.client(FAULTY)?.list_volumes(Default::default())?.entries.len(), 1);
    Ok(())
}
