//! GetMetadataAllocated and GetMetadataDelta.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::Kind;
use crate::conformance::content::{PLACES, write_at};
use crate::conformance::failure::Checked;
use crate::conformance::kit::{Answered, Field, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const SNAPSHOTS: Need = Need::Controller(ControllerRpc::CreateDeleteSnapshot);
const METADATA: Need = Need::Service(PluginService::SnapshotMetadataService);
const BLOCK: Need = Need::Uses(Kind::Block);

area! {
    "metadata/allocated", "GetMetadataAllocated", [CREATES, SNAPSHOTS, METADATA, Need::Mounts, BLOCK]
        => |kit| allocated(kit);
    "metadata/delta", "GetMetadataDelta", [CREATES, SNAPSHOTS, METADATA, Need::Mounts, BLOCK] => |kit| delta(kit);
    "metadata/max-results", "GetMetadataAllocated", [CREATES, SNAPSHOTS, METADATA, Need::Mounts, BLOCK]
        => |kit| max_results(kit);
    "metadata/starting-offset", "GetMetadataAllocated", [CREATES, SNAPSHOTS, METADATA, Need::Mounts, BLOCK]
        => |kit| starting_offset(kit);
    "metadata/offset-out-of-range", "GetMetadataAllocated Errors", [CREATES, SNAPSHOTS, METADATA, BLOCK]
        => |kit| out_of_range(kit);
    "metadata/not-found", "GetMetadataAllocated Errors", [CREATES, SNAPSHOTS, METADATA, BLOCK]
        => |kit| not_found(kit);
    "metadata/required-fields", "GetMetadataAllocated Errors", [CREATES, SNAPSHOTS, METADATA, BLOCK]
        => |kit| required(kit);
}

/// What both streams say.
trait Ranges {
    fn parts(&self) -> (BlockMetadataType, i64, &[BlockMetadata]);
}

macro_rules! ranges {
    ($($response:ident),*) => {
        $(impl Ranges for $response {
            fn parts(&self) -> (BlockMetadataType, i64, &[BlockMetadata]) {
                (self.block_metadata_type(), self.volume_capacity_bytes, &self.block_metadata)
            }
        })*
    };
}

ranges!(GetMetadataAllocatedResponse, GetMetadataDeltaResponse);

/// What holds of every stream; all its ranges.
fn check<R: Ranges, C: crate::client::Call<Answer = Vec<R>>>(
    answered: &Answered<C>,
    (from, most): (i64, usize),
) -> Checked<Vec<BlockMetadata>> {
    let parts: Vec<_> = answered.answer.iter().map(Ranges::parts).collect();
    let mut all: Vec<BlockMetadata> = Vec::new();
    for (style, capacity, blocks) in &parts {
        answered.must(*style != BlockMetadataType::Unknown, "a block_metadata_type, which is REQUIRED")?;
        answered.must(*capacity > 0, "a volume_capacity_bytes, which is REQUIRED")?;
        let first = (parts[0].0, parts[0].1);
        let wants = "the same block_metadata_type and volume_capacity_bytes in all messages of the stream";
        answered.must((*style, *capacity) == first, wants)?;
        answered.must(most == 0 || blocks.len() <= most, "no more than max_results entries in a message")?;
        all.extend(blocks.iter().copied());
    }
    answered.must(all.iter().all(|block| block.size_bytes > 0), "a size_bytes greater than zero")?;
    let ordered = all.windows(2).all(|pair| pair[0].byte_offset + pair[0].size_bytes <= pair[1].byte_offset);
    answered.must(ordered, "ascending ranges that do not overlap, in all messages together")?;
    let fixed = parts.first().is_some_and(|(style, ..)| *style == BlockMetadataType::FixedLength);
    let constant = all.windows(2).all(|pair| pair[0].size_bytes == pair[1].size_bytes);
    answered.must(!fixed || constant, "a constant size_bytes with FIXED_LENGTH")?;
    let first = all.first().is_none_or(|block| from < block.byte_offset + block.size_bytes);
    answered.must(first, "no range that ends before starting_offset")?;
    Ok(all)
}

const PIECE: i64 = 64 << 10;

/// Whether a place that was written is in the ranges.
fn covers(ranges: &[BlockMetadata], place: u64) -> bool {
    let mut at = i64::try_from(place).unwrap_or(i64::MAX);
    let end = at + PIECE;
    for range in ranges {
        if range.byte_offset <= at && at < range.byte_offset + range.size_bytes {
            at = range.byte_offset + range.size_bytes;
        }
    }
    at >= end
}

fn complete<C: crate::client::Call>(answered: &Answered<C>, ranges: &[BlockMetadata], places: &[u64]) -> Checked {
    let lost = places.iter().find(|place| !covers(ranges, **place));
    match lost {
        None => Ok(()),
        Some(place) => Err(answered.wrong(format_args!("the {PIECE} bytes at {place}, which were written"))),
    }
}

async fn write(kit: &Kit, volume: &Volume, seed: u64, places: &'static [u64]) -> Checked {
    let used = kit.bring(volume, Kind::Block).await?;
    let target = kit.publish(&used, "pod").await?;
    write_at(&target, seed, places).await?;
    kit.unpublish(&used, "pod").await?;
    kit.take(&used).await
}

async fn written(kit: &Kit) -> Checked<(Volume, Snapshot)> {
    let volume = kit.create(kit.request_for("blocks", Kind::Block)).await?;
    write(kit, &volume, 40, &PLACES).await?;
    let snapshot = kit.snapshot(&volume, "base").await?;
    Ok((volume, snapshot))
}

async fn plain(kit: &Kit) -> Checked<(Volume, Snapshot)> {
    let volume = kit.create(kit.request_for("blocks", Kind::Block)).await?;
    let snapshot = kit.snapshot(&volume, "plain").await?;
    Ok((volume, snapshot))
}

fn of(snapshot: &Snapshot) -> GetMetadataAllocatedRequest {
    GetMetadataAllocatedRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() }
}

fn between(base: &Snapshot, target: &Snapshot) -> GetMetadataDeltaRequest {
    GetMetadataDeltaRequest {
        base_snapshot_id: base.snapshot_id.clone(),
        target_snapshot_id: target.snapshot_id.clone(),
        ..Default::default()
    }
}

/// "the data ranges that have valid data as they were the target of some previous write operation".
async fn allocated(kit: &Kit) -> Checked {
    let (_, snapshot) = written(kit).await?;
    let answered = kit.ok(of(&snapshot)).await?;
    complete(&answered, &check(&answered, (0, 0))?, &PLACES)
}

const CHANGED: [u64; 2] = [1 << 20, 2 << 20];

async fn delta(kit: &Kit) -> Checked {
    let (volume, base) = written(kit).await?;
    write(kit, &volume, 41, &CHANGED).await?;
    let target = kit.snapshot(&volume, "target").await?;
    let answered = kit.ok(between(&base, &target)).await?;
    complete(&answered, &check(&answered, (0, 0))?, &CHANGED)?;
    let request = GetMetadataDeltaRequest { starting_offset: 2 << 20, max_results: 1, ..between(&base, &target) };
    let answered = kit.ok(request).await?;
    complete(&answered, &check(&answered, (2 << 20, 1))?, &CHANGED[1..])
}

async fn max_results(kit: &Kit) -> Checked {
    let (_, snapshot) = written(kit).await?;
    for most in [1, 2] {
        let request = GetMetadataAllocatedRequest { max_results: most, ..of(&snapshot) };
        let answered = kit.ok(request).await?;
        complete(&answered, &check(&answered, (0, usize::try_from(most).unwrap_or(0)))?, &PLACES)?;
    }
    Ok(())
}

async fn starting_offset(kit: &Kit) -> Checked {
    let (_, snapshot) = written(kit).await?;
    for (from, rest) in [(1_i64 << 20, &PLACES[1..]), (2 << 20, &PLACES[2..]), ((1 << 20) + 4096, &PLACES[2..])] {
        let request = GetMetadataAllocatedRequest { starting_offset: from, ..of(&snapshot) };
        let answered = kit.ok(request).await?;
        complete(&answered, &check(&answered, (from, 0))?, rest)?;
    }
    Ok(())
}

async fn out_of_range(kit: &Kit) -> Checked {
    let (volume, snapshot) = plain(kit).await?;
    let past = volume.capacity_bytes.max(snapshot.size_bytes).max(kit.params().size()).saturating_mul(4);
    for starting_offset in [-1, past] {
        let why = "the starting offset is negative or exceeds the volume size";
        let request = GetMetadataAllocatedRequest { starting_offset, ..of(&snapshot) };
        kit.refused(request, &[Code::OutOfRange], why).await?;
        let request = GetMetadataDeltaRequest { starting_offset, ..between(&snapshot, &snapshot) };
        kit.refused(request, &[Code::OutOfRange], why).await?;
    }
    Ok(())
}

async fn not_found(kit: &Kit) -> Checked {
    let (volume, there) = plain(kit).await?;
    let gone = kit.snapshot(&volume, "gone").await?;
    kit.ok(DeleteSnapshotRequest { snapshot_id: gone.snapshot_id.clone(), ..Default::default() }).await?;
    let why = "the snapshot specified was not found";
    kit.refused(of(&gone), &[Code::NotFound], why).await?;
    kit.refused(between(&gone, &there), &[Code::NotFound], why).await?;
    kit.refused(between(&there, &gone), &[Code::NotFound], why).await
}

async fn required(kit: &Kit) -> Checked {
    let (_, snapshot) = plain(kit).await?;
    let fields: [Field<GetMetadataAllocatedRequest>; 1] = [("snapshot_id", |request| request.snapshot_id.clear())];
    kit.required(of(&snapshot), &fields).await?;
    let fields: [Field<GetMetadataDeltaRequest>; 2] = [
        ("base_snapshot_id", |request| request.base_snapshot_id.clear()),
        ("target_snapshot_id", |request| request.target_snapshot_id.clear()),
    ];
    kit.required(between(&snapshot, &snapshot), &fields).await
}
