//! The kubelet's part of a pod's fsGroup: it changes the group and the mode of all that is in a volume, and leaves it out
//! next time (fsGroupChangePolicy OnRootMismatch) where the root of the volume shows that it was done.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, filesystem, mount};

use crate::{bring, rig, take};

const GROUP: u32 = 2000;
const USER: u32 = 3000;
const SET_GID: u32 = 0o2000;
const GROUP_OF_FILE: u32 = 0o660;
const GROUP_OF_FOLDER: u32 = 0o770 | SET_GID;

/// What the kubelet does to everything in a volume, the root last.
fn set_group(path: &Path) -> Result<()> {
    let seen = fs::symlink_metadata(path)?;
    if seen.is_dir() {
        for entry in fs::read_dir(path)? {
            set_group(&entry?.path())?;
        }
    }
    lchown(path, None, Some(GROUP))?;
    if !seen.is_symlink() {
        let bits = if seen.is_dir() { GROUP_OF_FOLDER } else { GROUP_OF_FILE };
        fs::set_permissions(path, Permissions::from_mode(seen.mode() & 0o7777 | bits))?;
    }
    Ok(())
}

/// Whether the kubelet would leave the volume as it is.
fn is_done(root: &Path) -> Result<bool> {
    let seen = fs::metadata(root)?;
    Ok(seen.gid() == GROUP && seen.mode() & GROUP_OF_FOLDER == GROUP_OF_FOLDER)
}

#[test]
fn a_group_that_the_kubelet_gave_a_volume_is_kept_and_is_not_given_again() -> Result<()> {
    let Some(mut rig) = rig("a_group_that_the_kubelet_gave_a_volume_is_kept_and_is_not_given_again")? else {
        return Ok(());
    };
    let mut volumes = Vec::new();
    for (name, client, capability, size) in [
        ("dir", &rig.files, mount(), MIB),
        ("ext4", &rig.disks, filesystem("ext4"), 16 * MIB),
        ("xfs", &rig.disks, filesystem("xfs"), 320 * MIB),
    ] {
        let volume = rig.sized(client, name, capability, size)?;
        bring(client, &volume)?;
        fs::create_dir(volume.target.join("folder"))?;
        fs::write(volume.target.join("folder/file"), "data")?;
        std::os::unix::fs::symlink("file", volume.target.join("folder/link"))?;
        ensure!(!is_done(&volume.target)?, "{name}: the test does not test");
        set_group(&volume.target)?;
        // A pod of that group, and of no privilege, may write, and what it makes is the group's.
        let status = std::process::Command::new("setpriv")
            .args([&format!("--reuid={USER}"), "--regid=4000", &format!("--groups={GROUP}"), "--inh-caps=-all"])
            .args(["sh", "-c", "echo more >> folder/file && umask 0007 && mkdir folder/own && echo > folder/own/file"])
            .current_dir(&volume.target)
            .status()?;
        ensure!(status.success(), "{name}: a pod of the group cannot write");
        assert_eq!(fs::metadata(volume.target.join("folder/own/file"))?.gid(), GROUP, "{name}");
        let mode = fs::metadata(&volume.target)?.mode();
        take(client, &volume)?;
        bring(client, &volume)?;
        ensure!(is_done(&volume.target)?, "{name}: the group is lost");
        assert_eq!(fs::metadata(&volume.target)?.mode(), mode, "{name}");
        client.node_unpublish_volume(volume.unpublish())?;
        client.node_publish_volume(volume.publish())?;
        ensure!(is_done(&volume.target)?, "{name}: the group is lost by a second pod");
        assert_eq!(fs::symlink_metadata(volume.target.join("folder/link"))?.gid(), GROUP, "{name}");
        take(client, &volume)?;
        volumes.push((name, volume));
    }
    rig.host.restart()?;
    let (files, disks) = (rig.host.client(crate::DIR)?, rig.host.client(crate::IMAGE)?);
    for (name, volume) in volumes {
        let client = if volume.staging.is_some() { &disks } else { &files };
        bring(client, &volume)?;
        ensure!(is_done(&volume.target)?, "{name}: the group is lost by a restart");
        take(client, &volume)?;
    }
    Ok(())
}
