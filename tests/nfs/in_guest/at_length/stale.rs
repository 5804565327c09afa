//! Handles that the server does not know any more.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, create, mount, wait_until};

use super::{LIMIT, Rig, can_serve, line};

#[test]
fn a_mount_that_has_gone_stale_is_replaced_by_the_next_publish() -> Result<()> {
    if !can_serve("a_mount_that_has_gone_stale_is_replaced_by_the_next_publish")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volume = rig.published("a")?;
    fs::write(volume.target.join("data"), "old")?;
    // Restored from a backup on the server: the same name, another folder.
    let folder = rig.on_server("volumes/a");
    fs::rename(&folder, rig.on_server("volumes/a.old"))?;
    fs::create_dir(&folder)?;
    fs::write(folder.join("data"), "new")?;
    fs::remove_dir_all(rig.on_server("volumes/a.old"))?;
    wait_until("the mount to be stale", LIMIT, || {
        Ok(rustix::fs::statfs(&volume.target).is_err_and(|error| error == rustix::io::Errno::STALE))
    })?;
    let stale = rig.under(Fault::StaleHandle);
    stale.node_publish_volume(volume.publish())?;
    assert_eq!(fs::read(volume.target.join("data"))?, b"new");
    let stacked = fs::read_to_string("/proc/self/mountinfo")?;
    let target = format!(" {} ", volume.target.display());
    assert_eq!(stacked.lines().filter(|line| line.contains(&target)).count(), 1, "{stacked}");
    // And one that is stale is taken away.
    fs::remove_dir_all(&folder)?;
    wait_until("the mount to be stale", LIMIT, || Ok(rustix::fs::statfs(&volume.target).is_err()))?;
    stale.node_unpublish_volume(volume.unpublish())?;
    ensure!(!volume.target.exists(), "it is left");
    Ok(())
}

#[test]
fn an_export_that_was_withdrawn_is_told_and_used_again_when_it_is_back() -> Result<()> {
    if !can_serve("an_export_that_was_withdrawn_is_told_and_used_again_when_it_is_back")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let (one, two) = (rig.published("one")?, rig.create("two")?);
    fs::write(one.target.join("data"), "words")?;
    rig.server.withdraw()?;
    let withdrawn = rig.under(Fault::AccessWithdrawn);
    let answer = withdrawn.node_publish_volume(two.publish());
    ensure!(answer.is_err(), "{answer:?}");
    ensure!(withdrawn.create_volume(create("three", MIB, mount())).is_err(), "a volume was made without the export");
    rig.server.export_to("*")?;
    wait_until("the export to be used again", LIMIT, || Ok(withdrawn.node_publish_volume(two.publish()).is_ok()))?;
    wait_until("volumes to be made again", LIMIT, || Ok(rig.create("three").is_ok()))?;
    assert_eq!(fs::read(one.target.join("data"))?, b"words");
    ensure!(line(&two.target)?.contains("/volumes/two "), "it is not there");
    // Withdrawn while the host was not there.
    rig.server.withdraw()?;
    rig.host.kill()?;
    rig.host.spawn()?;
    rig.host.wait_for_log("is not served; it is tried again")?;
    rig.server.export_to("*")?;
    rig.restart()?;
    for volume in [&one, &two] {
        rig.shares.node_unpublish_volume(volume.unpublish())?;
        rig.shares.delete_volume(volume.delete())?;
    }
    Ok(())
}
