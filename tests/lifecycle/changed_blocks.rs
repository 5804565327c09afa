//! Backups from changed blocks over the real socket: what is told, laid over the backup before, is the snapshot.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use dunnage_test_common::{
    Client, Host, MIB, Need, Setup, Volume, block, can_run, create, expand, filesystem, mount_new,
};
use rustix::fs::FallocateFlags;
use tonic::{Code, Status};

use crate::{DUNNAGE, bring, is, take};

const NAME: &str = "shared.csi.dunnage.dev";
const ROOMY: i64 = 24 * MIB;

/// Hosts on both file systems whose files share blocks.
fn hosts(test: &str) -> Result<Vec<(Host, Client)>> {
    if !can_run(test, &[Need::Root, Need::Program("mkfs.xfs"), Need::Program("mkfs.btrfs")])? {
        return Ok(Vec::new());
    }
    ["mkfs.xfs", "mkfs.btrfs"].into_iter().map(|mkfs| host(mkfs, "")).collect()
}

fn host(mkfs: &str, key: &str) -> Result<(Host, Client)> {
    let setup = Setup::new()?.backend("shared", "image", &format!("overcommit: 4\n{key}"))?;
    mount_new(&setup.scratch().path().join("disk"), 512, &setup.root("shared"), &[mkfs, "-q"], "loop")?;
    let host = setup.start(DUNNAGE)?;
    let client = host.client(NAME)?;
    Ok((host, client))
}

fn volume(host: &Host, client: &Client, bytes: i64, capability: csi::VolumeCapability) -> Result<Volume> {
    let name = "disk";
    let made = client.create_volume(create(name, bytes, capability.clone()))?.volume.context("no volume")?;
    let volume = Volume::new(made, capability, &host.setup().scratch().path().join("pods").join(name), true);
    bring(client, &volume)?;
    Ok(volume)
}

fn cut(client: &Client, name: &str, source: &Volume) -> Result<String> {
    let request = csi::CreateSnapshotRequest { source_volume_id: source.id(), name: name.into(), ..Default::default() };
    Ok(client.create_snapshot(request)?.snapshot.context("no snapshot")?.snapshot_id)
}

/// What the stream of a request tells, and the capacity it says.
fn delta(client: &Client, request: &csi::GetMetadataDeltaRequest) -> Result<(Vec<Range<u64>>, i64), Status> {
    delta_of(client, csi::BlockMetadataType::VariableLength, request)
}

fn delta_of(
    client: &Client,
    style: csi::BlockMetadataType,
    request: &csi::GetMetadataDeltaRequest,
) -> Result<(Vec<Range<u64>>, i64), Status> {
    let most = usize::try_from(request.max_results).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
    client.run(|channel| async move {
        let mut answers = SnapshotMetadataClient::new(channel).get_metadata_delta(request.clone()).await?.into_inner();
        let (mut told, mut capacity) = (Vec::new(), 0);
        while let Some(answer) = answers.message().await? {
            assert!(answer.block_metadata.len() <= most, "{} and not {most}", answer.block_metadata.len());
            assert_eq!(answer.block_metadata_type(), style);
            capacity = answer.volume_capacity_bytes;
            told.extend(answer.block_metadata);
        }
        Ok((told.iter().map(range).collect(), capacity))
    })
}

fn allocated(client: &Client, snapshot_id: &str) -> Result<Vec<Range<u64>>, Status> {
    let request = csi::GetMetadataAllocatedRequest { snapshot_id: snapshot_id.into(), ..Default::default() };
    client.run(|channel| async move {
        let mut answers = SnapshotMetadataClient::new(channel).get_metadata_allocated(request).await?.into_inner();
        let mut told = Vec::new();
        while let Some(answer) = answers.message().await? {
            told.extend(answer.block_metadata);
        }
        Ok(told.iter().map(range).collect())
    })
}

fn range(one: &csi::BlockMetadata) -> Range<u64> {
    one.byte_offset.cast_unsigned()..(one.byte_offset + one.size_bytes).cast_unsigned()
}

fn between(base: &str, target: &str) -> csi::GetMetadataDeltaRequest {
    let (base_snapshot_id, target_snapshot_id) = (base.into(), target.into());
    csi::GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, ..Default::default() }
}

/// Copies what was told from a snapshot onto a backup.
fn lay(backup: &mut Vec<u8>, told: &[Range<u64>], snapshot: &[u8]) {
    backup.resize(snapshot.len(), 0);
    for range in told {
        let range = range.start as usize..range.end as usize;
        backup[range.clone()].copy_from_slice(&snapshot[range]);
    }
}

fn bytes_of(host: &Host, name: &str) -> Result<Vec<u8>> {
    Ok(fs::read(host.setup().root("shared").join("snapshots").join(name))?)
}

fn write(device: &Path, bytes: &[u8], offset: i64) -> Result<()> {
    let file = File::options().write(true).open(device)?;
    file.write_all_at(bytes, offset.cast_unsigned())?;
    Ok(file.sync_all()?)
}

#[test]
fn a_backup_of_what_was_told_is_the_snapshot_byte_for_byte() -> Result<()> {
    for (host, client) in hosts("a_backup_of_what_was_told_is_the_snapshot_byte_for_byte")? {
        let disk = volume(&host, &client, ROOMY, block())?;
        write(&disk.target, &vec![1; 3 * MIB as usize], MIB)?;
        let first = cut(&client, "first", &disk)?;
        write(&disk.target, &[2; 4096], 2 * MIB)?;
        write(&disk.target, &[3; 10_000], 20 * MIB + 77)?;
        let device = File::options().write(true).open(&disk.target)?;
        rustix::fs::fallocate(&device, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 1 << 20, 65536)?;
        drop(device);
        client.controller_expand_volume(expand(&disk.id(), 2 * ROOMY))?;
        client.node_expand_volume(disk.expand_on_node(2 * ROOMY))?;
        write(&disk.target, b"behind the old end", 2 * ROOMY - 4096)?;
        let second = cut(&client, "second", &disk)?;

        let mut backup = Vec::new();
        lay(&mut backup, &allocated(&client, &first)?, &bytes_of(&host, "first")?);
        ensure!(backup == bytes_of(&host, "first")?, "the full backup is not the snapshot");
        let (told, capacity) = delta(&client, &between(&first, &second))?;
        assert_eq!(capacity, 2 * ROOMY);
        lay(&mut backup, &told, &bytes_of(&host, "second")?);
        ensure!(backup == bytes_of(&host, "second")?, "the backup of the changes is not the snapshot");
        let size: u64 = told.iter().map(|range| range.end - range.start).sum();
        ensure!(size <= 4096 + 3 * 4096 + 65536 + 4096, "{size} bytes are told: {told:?}");

        // Message by message, and cut off after each: the rest is the same.
        let (one_by_one, _) =
            delta(&client, &csi::GetMetadataDeltaRequest { max_results: 1, ..between(&first, &second) })?;
        assert_eq!(one_by_one, told);
        for (number, range) in told.iter().enumerate() {
            let starting_offset = range.end.cast_signed();
            let (rest, _) =
                delta(&client, &csi::GetMetadataDeltaRequest { starting_offset, ..between(&first, &second) })?;
            assert_eq!(rest, told[number + 1..]);
        }
        take(&client, &disk)?;
    }
    Ok(())
}

#[test]
fn a_backup_in_blocks_of_one_size_is_the_snapshot_byte_for_byte() -> Result<()> {
    let test = "a_backup_in_blocks_of_one_size_is_the_snapshot_byte_for_byte";
    if !can_run(test, &[Need::Root, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    let fixed = |client: &Client, request: &_| delta_of(client, csi::BlockMetadataType::FixedLength, request);
    let (host, client) = host("mkfs.xfs", "changed_block_size: 64KiB")?;
    // The second snapshot has no whole number of such blocks.
    for (name, bytes, size) in [("whole", ROOMY, 64 << 10), ("odd", ROOMY + 8192, 8192)] {
        let disk = volume(&host, &client, bytes, block())?;
        write(&disk.target, &vec![1; 3 * MIB as usize], MIB)?;
        let first = cut(&client, &format!("{name}-first"), &disk)?;
        write(&disk.target, &[2; 4096], 2 * MIB)?;
        write(&disk.target, &[3; 100_000], 20 * MIB + 77)?;
        write(&disk.target, b"at the end", bytes - 4096)?;
        let second = cut(&client, &format!("{name}-second"), &disk)?;
        let mut backup = Vec::new();
        lay(&mut backup, &allocated(&client, &first)?, &bytes_of(&host, &format!("{name}-first"))?);
        let (told, _) = fixed(&client, &between(&first, &second))?;
        ensure!(told.iter().all(|block| block.end - block.start == size && block.start % size == 0), "{told:?}");
        let content = bytes_of(&host, &format!("{name}-second"))?;
        lay(&mut backup, &told, &content);
        ensure!(backup == content, "{name}: the backup is not the snapshot");
        for (number, block) in told.iter().enumerate() {
            let starting_offset = block.end.cast_signed();
            let request = csi::GetMetadataDeltaRequest { starting_offset, max_results: 3, ..between(&first, &second) };
            assert_eq!(fixed(&client, &request)?.0, told[number + 1..], "{name}: cut off after {block:?}");
        }
        take(&client, &disk)?;
        client.delete_volume(csi::DeleteVolumeRequest { volume_id: disk.id(), ..Default::default() })?;
    }
    Ok(())
}

#[test]
fn a_file_system_that_is_in_use_is_backed_up_in_the_same_way() -> Result<()> {
    for (host, client) in hosts("a_file_system_that_is_in_use_is_backed_up_in_the_same_way")? {
        let disk = volume(&host, &client, ROOMY, filesystem("ext4"))?;
        fs::write(disk.target.join("one"), vec![7; MIB as usize])?;
        let first = cut(&client, "first", &disk)?;
        fs::write(disk.target.join("two"), vec![8; MIB as usize])?;
        fs::remove_file(disk.target.join("one"))?;
        let second = cut(&client, "second", &disk)?;
        let mut backup = Vec::new();
        lay(&mut backup, &allocated(&client, &first)?, &bytes_of(&host, "first")?);
        lay(&mut backup, &delta(&client, &between(&first, &second))?.0, &bytes_of(&host, "second")?);
        ensure!(backup == bytes_of(&host, "second")?, "the backup is not the snapshot");
        take(&client, &disk)?;
    }
    Ok(())
}

#[test]
fn a_snapshot_that_is_deleted_while_it_is_read_is_an_error_and_a_client_that_hangs_up_is_none() -> Result<()> {
    let test = "a_snapshot_that_is_deleted_while_it_is_read_is_an_error_and_a_client_that_hangs_up_is_none";
    for (host, client) in hosts(test)? {
        let disk = volume(&host, &client, 2 * ROOMY, block())?;
        let blank = cut(&client, "blank", &disk)?;
        let file = File::options().write(true).open(&disk.target)?;
        // Twice what a stream holds that nobody reads.
        for block in 0..2 * ROOMY.cast_unsigned() / 8192 {
            file.write_all_at(&[9; 4096], block * 8192)?;
        }
        file.sync_all()?;
        drop(file);
        let full = cut(&client, "full", &disk)?;
        let request = csi::GetMetadataDeltaRequest { max_results: 1, ..between(&blank, &full) };
        let begin = |request: csi::GetMetadataDeltaRequest| {
            client.run(|channel| async move {
                let mut metadata = SnapshotMetadataClient::new(channel);
                let mut answers = metadata.get_metadata_delta(request).await?.into_inner();
                answers.message().await?;
                Ok::<_, Status>(answers)
            })
        };
        drop(begin(request.clone())?);
        let mut answers = begin(request.clone())?;
        client.delete_snapshot(csi::DeleteSnapshotRequest { snapshot_id: full.clone(), ..Default::default() })?;
        let rest = client.run(|_| async move {
            while answers.message().await?.is_some() {}
            Ok::<_, Status>(())
        });
        is("the rest of a snapshot that is gone", rest, Code::NotFound)?;
        is("a snapshot that is gone", delta(&client, &request), Code::NotFound)?;
        take(&client, &disk)?;
    }
    Ok(())
}
