//! Snapshots and clones of thin volumes.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{Fault, MIB, Volume, create, filesystem, run};
use tonic::Code;

use super::{Rig, can, is};

const SIZE: i64 = 320 * MIB;

fn snapshot(rig: &Rig, name: &str, of: &Volume) -> Result<csi::Snapshot> {
    let request = csi::CreateSnapshotRequest { name: name.into(), source_volume_id: of.id(), ..Default::default() };
    let made = rig.client.create_snapshot(request.clone())?.snapshot.expect("no snapshot");
    let again = rig.client.create_snapshot(request)?.snapshot.expect("no snapshot");
    ensure!(made == again && made.ready_to_use, "{made:?}, then {again:?}");
    Ok(made)
}

fn copy(rig: &Rig, name: &str, source: Type, bytes: i64) -> Result<Volume> {
    let mut request = create(name, bytes, filesystem("xfs"));
    request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
    let volume = rig.create_with(request.clone())?;
    assert_eq!(rig.create_with(request)?.made, volume.made, "the same again is answered otherwise");
    Ok(volume)
}

fn of_snapshot(snapshot: &csi::Snapshot) -> Type {
    Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() })
}

#[test]
fn a_snapshot_of_a_volume_in_use_a_larger_restore_and_a_clone_are_used_beside_it_on_xfs() -> Result<()> {
    if !can("a_snapshot_of_a_volume_in_use_a_larger_restore_and_a_clone_are_used_beside_it_on_xfs")? {
        return Ok(());
    }
    let mut rig = Rig::thin(512, "overcommit: 8\nfs_type: xfs")?;
    let volume = rig.create("a", SIZE, filesystem("xfs"))?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "before")?;
    let taken = snapshot(&rig, "s", &volume)?;
    assert_eq!(taken.size_bytes, SIZE);
    fs::write(volume.target.join("data"), "after")?;
    let restored = copy(&rig, "restored", of_snapshot(&taken), 2 * SIZE)?;
    let clone = copy(&rig, "clone", Type::Volume(VolumeSource { volume_id: volume.id() }), 0)?;
    rig.restart()?;
    rig.bring(&restored)?;
    rig.bring(&clone)?;
    assert_eq!(fs::read_to_string(restored.target.join("data"))?, "before");
    assert_eq!(fs::read_to_string(clone.target.join("data"))?, "after");
    let seen = rustix::fs::statvfs(&restored.target)?;
    ensure!(seen.f_blocks * seen.f_frsize > (SIZE + SIZE / 2) as u64, "the restore has {} blocks", seen.f_blocks);
    fs::write(restored.target.join("data"), "mine")?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "after");
    // The source first, then what was taken of it, and what was made from that last.
    rig.take(&volume)?;
    rig.delete(&volume)?;
    assert_eq!(rig.client.list_snapshots(Default::default())?.entries.len(), 1);
    let delete = csi::DeleteSnapshotRequest { snapshot_id: taken.snapshot_id.clone(), ..Default::default() };
    rig.client.delete_snapshot(delete.clone())?;
    rig.client.delete_snapshot(delete)?;
    assert_eq!(fs::read_to_string(restored.target.join("data"))?, "mine");
    rig.take(&restored)?;
    rig.delete(&restored)?;
    rig.take(&clone)?;
    rig.delete(&clone)?;
    rig.is_left_with(&["pool"])
}

#[test]
fn a_device_that_a_killed_command_has_left_suspended_goes_on_at_the_next_start() -> Result<()> {
    if !can("a_device_that_a_killed_command_has_left_suspended_goes_on_at_the_next_start")? {
        return Ok(());
    }
    let mut rig = Rig::thin(128, "")?;
    let volume = rig.create("a", 64 * MIB, filesystem("ext4"))?;
    rig.bring(&volume)?;
    rig.host.kill()?;
    run("dmsetup", &["suspend", &format!("{}-vol--a", rig.group.name())])?;
    rig.restart()?;
    fs::write(volume.target.join("data"), "data")?;
    // All volumes hang on this one.
    rig.host.kill()?;
    run("dmsetup", &["suspend", &format!("{}-pool-tpool", rig.group.name())])?;
    rig.restart()?;
    let file = File::create(volume.target.join("more"))?;
    (&file).write_all(&[7; 4096])?;
    file.sync_all()?;
    drop(file);
    rig.take(&volume)
}

#[test]
fn a_file_system_that_somebody_has_frozen_is_not_taken_and_stays_frozen() -> Result<()> {
    if !can("a_file_system_that_somebody_has_frozen_is_not_taken_and_stays_frozen")? {
        return Ok(());
    }
    let rig = Rig::thin(128, "overcommit: 4")?;
    let volume = rig.create("a", 64 * MIB, filesystem("ext4"))?;
    rig.bring(&volume)?;
    let frozen = dunnage_test_common::Frozen::new(&volume.target)?;
    let request = csi::CreateSnapshotRequest { name: "s".into(), source_volume_id: volume.id(), ..Default::default() };
    is(rig.under(Fault::Frozen).create_snapshot(request), Code::FailedPrecondition, "frozen")?;
    assert_eq!(rig.group.volumes()?, ["pool", "vol-a"]);
    // It is an error to thaw what is not frozen.
    drop(frozen);
    fs::write(volume.target.join("data"), "data")?;
    snapshot(&rig, "s", &volume)?;
    Ok(())
}
