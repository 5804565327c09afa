//! Copies of a file system that is in use: of one moment, and never at the price of its users.

mod groups;
mod guard;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type};
use dunnage_test_common::{
    Client, Fault, Frozen, Host, MIB, Need, Setup, Volume, block, can_run, create, filesystem, mount_new, wait_until,
};
use tonic::Code;

use crate::{DUNNAGE, bring, is, take};

const NAME: &str = "shared.csi.dunnage.dev";

fn start(test: &str) -> Result<Option<(Host, Client)>> {
    if !can_run(test, &[Need::Root, Need::Program("mkfs.xfs"), Need::Program("mkfs.btrfs")])? {
        return Ok(None);
    }
    let setup = Setup::new()?.backend("shared", "image", "overcommit: 4")?;
    mount_new(&setup.scratch().path().join("disk"), 1536, &setup.root("shared"), &["mkfs.xfs", "-q"], "loop")?;
    let host = setup.start(DUNNAGE)?;
    let client = host.client(NAME)?;
    Ok(Some((host, client)))
}

fn volume(host: &Host, client: &Client, request: csi::CreateVolumeRequest, fs_type: &str) -> Result<Volume> {
    let folder = host.setup().scratch().path().join("pods").join(&request.name);
    let made = client.create_volume(request)?.volume.context("no volume")?;
    Ok(Volume::new(made, filesystem(fs_type), &folder, true))
}

fn cut(client: &Client, name: &str, source: &Volume) -> Result<csi::Snapshot, tonic::Status> {
    let request = csi::CreateSnapshotRequest { source_volume_id: source.id(), name: name.into(), ..Default::default() };
    Ok(client.create_snapshot(request)?.snapshot.unwrap_or_default())
}

fn restore(name: &str, bytes: i64, snapshot: &csi::Snapshot, fs_type: &str) -> csi::CreateVolumeRequest {
    let mut request = create(name, bytes, filesystem(fs_type));
    let content = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() });
    request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(content) });
    request
}

/// Writes the numbers 1, 2, 3, ... to two files in turns, the first before the second, until told to stop.
fn write_in_order(folder: &Path, stop: &AtomicBool) -> Result<u64> {
    let open = |name: &str| File::create(folder.join(name));
    let (first, second) = (open("first")?, open("second")?);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        first.write_all_at(&number.to_le_bytes(), 0)?;
        second.write_all_at(&number.to_le_bytes(), 0)?;
    }
    Ok(number)
}

fn number(folder: &Path, name: &str) -> Result<u64> {
    let bytes = fs::read(folder.join(name))?;
    Ok(u64::from_le_bytes(bytes.as_slice().try_into().with_context(|| format!("{name} has {} bytes", bytes.len()))?))
}

/// What a file system has for files, in bytes.
fn room(folder: &Path) -> Result<u64> {
    let seen = rustix::fs::statvfs(folder)?;
    Ok(seen.f_blocks * seen.f_frsize)
}

#[test]
fn a_snapshot_of_a_file_system_in_use_is_of_one_moment_on_every_kind() -> Result<()> {
    let test = "a_snapshot_of_a_file_system_in_use_is_of_one_moment_on_every_kind";
    let Some((host, client)) = start(test)? else { return Ok(()) };
    for (fs_type, bytes) in [("ext4", 64 * MIB), ("xfs", 320 * MIB), ("btrfs", 192 * MIB)] {
        let source = volume(&host, &client, create(fs_type, bytes, filesystem(fs_type)), fs_type)?;
        bring(&client, &source)?;
        let stop = AtomicBool::new(false);
        let written: Result<(Vec<csi::Snapshot>, u64)> = thread::scope(|scope| {
            let writer = scope.spawn(|| write_in_order(&source.target, &stop));
            let cut_some = || -> Result<Vec<csi::Snapshot>> {
                wait_until("the writer to write", Duration::from_secs(60), || {
                    Ok(number(&source.target, "second").is_ok_and(|number| number > 100))
                })?;
                (0..5).map(|index| Ok(cut(&client, &format!("{fs_type}-{index}"), &source)?)).collect()
            };
            let snapshots = cut_some();
            stop.store(true, Ordering::Relaxed);
            let last = writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the writer panicked")))?;
            Ok((snapshots?, last))
        });
        let (snapshots, last) = written?;
        let mut before = 0;
        for (index, snapshot) in snapshots.iter().enumerate() {
            // Larger than its source, and mounted beside it.
            let request = restore(&format!("{fs_type}-restored-{index}"), bytes + 64 * MIB, snapshot, fs_type);
            let restored = volume(&host, &client, request, fs_type)?;
            bring(&client, &restored)?;
            let (first, second) = (number(&restored.target, "first")?, number(&restored.target, "second")?);
            ensure!(
                first == second || first == second + 1,
                "{fs_type}: the copy is torn: {first} was written, and {second} after it"
            );
            ensure!(before < first && first <= last, "{fs_type}: {before}, {first}, {last}");
            let (size, larger) = (room(&source.target)?, room(&restored.target)?);
            ensure!(larger >= size + (60 << 20), "{fs_type}: the source has {size} bytes and its restore {larger}");
            before = first;
            take(&client, &restored)?;
            client.delete_volume(restored.delete())?;
        }
        take(&client, &source)?;
        client.delete_volume(source.delete())?;
        for snapshot in snapshots {
            let snapshot_id = snapshot.snapshot_id;
            client.delete_snapshot(csi::DeleteSnapshotRequest { snapshot_id, ..Default::default() })?;
        }
    }
    Ok(())
}

#[test]
fn a_file_system_that_somebody_else_froze_is_not_copied_and_stays_frozen() -> Result<()> {
    let test = "a_file_system_that_somebody_else_froze_is_not_copied_and_stays_frozen";
    let Some((host, client)) = start(test)? else { return Ok(()) };
    let source = volume(&host, &client, create("v", 64 * MIB, filesystem("ext4")), "ext4")?;
    bring(&client, &source)?;
    let frozen = Frozen::new(&source.target)?;
    let held = client.under("image", Fault::Frozen);
    is("a snapshot", cut(&held, "s", &source), Code::FailedPrecondition)?;
    let error = cut(&client, "s", &source).err().context("it is refused")?;
    ensure!(error.message().contains("frozen already") && error.message().contains("fsfreeze"), "{error}");
    // Unfreezing fails where it is not frozen any more.
    drop(frozen);
    let listed = client.list_snapshots(Default::default())?;
    ensure!(listed.entries.is_empty(), "{:?}", listed.entries);
    cut(&client, "s", &source)?;
    File::create(source.target.join("after"))?.write_all(b"it can be written")?;
    take(&client, &source)?;
    Ok(())
}

#[test]
fn a_file_system_that_is_mounted_only_where_nobody_was_told_is_not_copied() -> Result<()> {
    let test = "a_file_system_that_is_mounted_only_where_nobody_was_told_is_not_copied";
    let Some((host, client)) = start(test)? else { return Ok(()) };
    let source = volume(&host, &client, create("v", 64 * MIB, filesystem("ext4")), "ext4")?;
    bring(&client, &source)?;
    let elsewhere = host.setup().scratch().folder("elsewhere")?;
    rustix::mount::mount_bind(&source.target, &elsewhere)?;
    for path in source.staging.iter().chain([&source.target]) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty())?;
    }
    File::create(elsewhere.join("written"))?.write_all(b"and not flushed")?;
    let error = cut(&client, "s", &source).err().context("it is torn: nobody held its writers back")?;
    ensure!(error.code() == Code::FailedPrecondition && error.message().contains("unmount it everywhere"), "{error}");
    rustix::mount::unmount(&elsewhere, rustix::mount::UnmountFlags::empty())?;
    let snapshot = cut(&client, "s", &source)?;
    let restored = volume(&host, &client, restore("restored", 64 * MIB, &snapshot, "ext4"), "ext4")?;
    bring(&client, &restored)?;
    assert_eq!(fs::read(restored.target.join("written"))?, b"and not flushed");
    take(&client, &restored)?;
    take(&client, &source)
}
