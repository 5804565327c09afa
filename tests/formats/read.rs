//! What this release and the one before wrote is read: by what follows from it.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, MIB, Volume, block, create, loop_devices_beneath, mount, wait_until};

use crate::{DISKS, FILES, Left, MARK, POD, boot, fixture, needs_root};

impl Left {
    fn volume(&self, name: &str, capability: csi::VolumeCapability, stages: bool) -> Volume {
        let made = csi::Volume { volume_id: self.ids[name].clone(), ..Default::default() };
        Volume::new(made, capability, &self.path("pods").join(name), stages)
    }
}

fn listed(client: &Client) -> Result<Vec<(String, i64)>> {
    let entries = client.list_volumes(Default::default())?.entries.into_iter();
    let mut volumes: Vec<_> = entries.map(|entry| entry.volume.unwrap()).collect();
    volumes.sort_by(|one, other| one.volume_id.cmp(&other.volume_id));
    Ok(volumes.into_iter().map(|volume| (volume.volume_id, volume.capacity_bytes)).collect())
}

fn reasons(client: &Client, volume: &Volume) -> Result<Vec<String>> {
    let request = csi::NodeGetVolumeHealthRequest { volume_id: volume.id(), ..Default::default() };
    let health = client.node_get_volume_health(request)?.volume_health.context("no health")?;
    Ok(health.health_statuses.into_iter().map(|one| one.reason).collect())
}

#[test]
fn markers_and_records_of_volumes_are_read_and_a_repeated_create_finds_them() -> Result<()> {
    if !needs_root("markers_and_records_of_volumes_are_read_and_a_repeated_create_finds_them")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    left.host.restart()?;
    let (files, disks) = (left.host.client(FILES)?, left.host.client(DISKS)?);
    for (client, names) in [(&files, ["notes", "pod", "limited"]), (&disks, ["database", "raw", "half"])] {
        let size = |name: &str| if name == "pod" { 64 * MIB } else { 16 * MIB };
        let mut wanted: Vec<_> = names.iter().map(|name| (left.ids[name].clone(), size(name))).collect();
        wanted.sort();
        assert_eq!(listed(client)?, wanted);
    }
    // The id of a volume never changes its form.
    assert_eq!(left.ids["notes"], "3iwbz5jcfd4nuh7ysyfoqhsuki.notes.266hue3m7ekdg");
    for (client, name, capability) in
        [(&files, "notes", mount()), (&disks, "database", mount()), (&disks, "raw", block())]
    {
        let again = client.create_volume(create(name, 16 * MIB, capability.clone()))?.volume.context("no volume")?;
        assert_eq!(again.volume_id, left.ids[name], "the digest of a request has changed");
        // And it can be used.
        let volume = left.volume(name, capability, name != "notes");
        if volume.staging.is_some() {
            client.node_unpublish_volume(volume.unpublish())?;
            client.node_unstage_volume(volume.unstage())?;
            client.node_stage_volume(volume.stage())?;
        }
        client.node_publish_volume(volume.publish())?;
        client.node_unpublish_volume(volume.unpublish())?;
        if volume.staging.is_some() {
            client.node_unstage_volume(volume.unstage())?;
        }
        client.delete_volume(volume.delete())?;
    }
    let context = csi::ControllerGetVolumeRequest { volume_id: left.ids["limited"].clone() };
    let limited = files.controller_get_volume(context)?.volume.context("no volume")?;
    assert_eq!(limited.volume_context, [("colour".to_owned(), "red".to_owned())].into());
    Ok(())
}

#[test]
fn a_tree_that_is_being_copied_is_gone_on_with() -> Result<()> {
    if !needs_root("a_tree_that_is_being_copied_is_gone_on_with")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let scratch = left.host.setup().scratch().path().to_owned();
    for (name, path) in [
        ("weekly.snapshot", "snapshots/weekly"),
        ("nightly.snapshot", "snapshots/nightly"),
        ("nightly.job", "jobs/snapshot.nightly"),
    ] {
        left.put(&format!("roots/files/.dunnage/{path}"), &fixture(&format!("dir/{name}.json"), &scratch)?)?;
    }
    for path in ["snapshots/weekly", "unfinished/snapshot.nightly/tree", "unfinished/snapshot.nightly/beside"] {
        fs::create_dir_all(left.path("roots/files").join(path))?;
    }
    // A file that was being copied.
    let half = left.path("roots/files/unfinished/snapshot.nightly/tree/file");
    fs::write(&half, "wor")?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o1000))?;
    fs::write(left.path("roots/files/volumes/notes/file"), "words")?;
    left.host.restart()?;
    let files = left.host.client(FILES)?;
    wait_until("the snapshot to be whole", Duration::from_secs(60), || {
        Ok(files.list_snapshots(Default::default())?.entries.len() == 2)
    })?;
    let copy = left.path("roots/files/snapshots/nightly");
    assert_eq!(fs::read_to_string(copy.join("file"))?, "words");
    Ok(())
}

#[test]
fn records_of_what_was_mounted_are_read_and_undone() -> Result<()> {
    if !needs_root("records_of_what_was_mounted_are_read_and_undone")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    left.host.restart()?;
    let (files, disks) = (left.host.client(FILES)?, left.host.client(DISKS)?);
    for (client, name, capability, found) in [
        (&files, "notes", mount(), &["TargetMountMissing"][..]),
        (&disks, "database", mount(), &["DeviceGone", "StagingMountMissing", "TargetMountMissing"]),
        (&disks, "raw", block(), &["DeviceGone", "TargetMountMissing"]),
    ] {
        let volume = left.volume(name, capability, name != "notes");
        assert_eq!(reasons(client, &volume)?, found, "{name}");
        client.node_unpublish_volume(volume.unpublish())?;
        if volume.staging.is_some() {
            client.node_unstage_volume(volume.unstage())?;
        }
        assert_eq!(reasons(client, &volume)?, [""; 0], "{name}");
        ensure!(!boot(&left.host)?.join(format!("{}.json", volume.id())).exists(), "the record of {name} is left");
    }
    Ok(())
}

#[test]
fn a_snapshot_and_the_job_that_copies_it_are_read_and_gone_on_with() -> Result<()> {
    if !needs_root("a_snapshot_and_the_job_that_copies_it_are_read_and_gone_on_with")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let image = fs::File::options().write(true).open(left.path("roots/disks/images/raw"))?;
    image.write_all_at(b"not done", 0)?;
    image.write_all_at(b"not done either", 9 << 20)?;
    // What is done already is not copied again.
    left.add_copy()?;
    left.host.restart()?;
    let disks = left.host.client(DISKS)?;
    let ready = || -> Result<bool> {
        let listed = disks.list_snapshots(Default::default())?.entries;
        let [csi::list_snapshots_response::Entry { snapshot: Some(snapshot) }] = listed.as_slice() else {
            anyhow::bail!("not one snapshot: {listed:?}");
        };
        ensure!(snapshot.source_volume_id == left.ids["raw"], "{snapshot:?}");
        Ok(snapshot.ready_to_use)
    };
    wait_until("the snapshot to be ready", Duration::from_secs(60), ready)?;
    let bytes = fs::read(left.path("roots/disks/snapshots/nightly"))?;
    ensure!(bytes.starts_with(b"done\0") && bytes[9 << 20..].starts_with(b"not done either"), "it began anew");
    Ok(())
}

#[test]
fn the_mark_of_an_ephemeral_volume_is_read_and_the_volume_deleted_by_it() -> Result<()> {
    if !needs_root("the_mark_of_an_ephemeral_volume_is_read_and_the_volume_deleted_by_it")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    left.host.restart()?;
    let files = left.host.client(FILES)?;
    let (volume_id, target_path) = (POD.0.to_owned(), POD.1.to_owned());
    files.node_unpublish_volume(csi::NodeUnpublishVolumeRequest { volume_id, target_path })?;
    ensure!(listed(&files)?.iter().all(|(id, _)| *id != left.ids["pod"]), "it is not deleted");
    ensure!(!left.path("state/ephemeral").join(MARK).exists(), "the mark is left");
    Ok(())
}

#[test]
fn what_a_node_remembers_of_a_backend_is_read_and_another_store_refused() -> Result<()> {
    if !needs_root("what_a_node_remembers_of_a_backend_is_read_and_another_store_refused")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let marker = left.path("roots/disks/.dunnage/instance.json");
    fs::write(&marker, fs::read_to_string(&marker)?.replace("e64mza44", "e64mza45"))?;
    left.host.spawn()?;
    left.host.wait_for_log("it was instance e64mza44xglacj3bdn4oflpmki before")
}

#[test]
fn the_file_that_says_a_device_was_blank_is_read_and_the_device_formatted_again() -> Result<()> {
    if !needs_root("the_file_that_says_a_device_was_blank_is_read_and_the_device_formatted_again")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let mut image = fs::File::options().write(true).open(left.path("roots/disks/images/half"))?;
    image.seek(SeekFrom::Start(9 << 10))?;
    image.write_all(b"a part of a file system")?;
    drop(image);
    left.host.restart()?;
    let disks = left.host.client(DISKS)?;
    let half = left.volume("half", mount(), true);
    disks.node_stage_volume(half.stage())?;
    disks.node_publish_volume(half.publish())?;
    fs::write(half.target.join("data"), "data")?;
    disks.node_unpublish_volume(half.unpublish())?;
    disks.node_unstage_volume(half.unstage())?;
    ensure!(loop_devices_beneath(&left.path("")).is_empty(), "a loop device is left");
    let name = format!("state/node/{}.formatting", left.ids["half"]);
    ensure!(!left.path(&name).exists(), "the file is left");
    Ok(())
}
