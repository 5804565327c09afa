//! Requests for the blocks of snapshots, and the ranges of the answers.

use std::collections::HashMap;
use std::ops::Range;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{Error, ErrorKind, Result, Secrets, SnapshotId};

use super::limits;
use super::snapshot::{SnapshotHandle, snapshot_handle, snapshot_handle_of};

/// The most ranges of one message, also where the client allows more: a range has at most 24 bytes, and clients take
/// messages of 4 MiB.
const MOST: usize = 8192;

/// A checked GetMetadataAllocated or GetMetadataDelta.
#[derive(Debug, Clone)]
pub struct GetBlocks {
    /// What is compared with, where it is about a difference.
    pub base: Option<SnapshotId>,
    /// The snapshot whose blocks are asked for.
    pub target: SnapshotId,
    /// From which byte on.
    pub from: u64,
    /// The most ranges of one message, at least 1.
    pub max_results: usize,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked GetMetadataAllocatedRequest.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for what is missing or malformed, [`OutOfRange`](ErrorKind::OutOfRange)
/// for an offset below zero, [`NotFound`](ErrorKind::NotFound) for an id of a form that we never made.
pub fn get_metadata_allocated(wire: csi::GetMetadataAllocatedRequest) -> Result<GetBlocks> {
    let target = snapshot_handle(wire.snapshot_id)?;
    get_blocks(None, target, wire.starting_offset, wire.max_results, wire.secrets)
}

/// A checked GetMetadataDeltaRequest.
///
/// # Errors
/// As [`get_metadata_allocated`], and [`InvalidArgument`](ErrorKind::InvalidArgument) for snapshots of two instances.
pub fn get_metadata_delta(wire: csi::GetMetadataDeltaRequest) -> Result<GetBlocks> {
    let base = snapshot_handle_of("base_snapshot_id", wire.base_snapshot_id)?;
    let target = snapshot_handle_of("target_snapshot_id", wire.target_snapshot_id)?;
    get_blocks(Some(base), target, wire.starting_offset, wire.max_results, wire.secrets)
}

fn get_blocks(
    base: Option<SnapshotHandle>,
    target: SnapshotHandle,
    starting_offset: i64,
    max_results: i32,
    secrets: HashMap<String, String>,
) -> Result<GetBlocks> {
    let max_results = match usize::try_from(max_results) {
        Ok(0) => MOST,
        Ok(some) => some.min(MOST),
        Err(_) => return Err(Error::invalid(format!("max_results is negative: {max_results}"))),
    };
    let secrets = limits::secrets(secrets)?;
    let from = u64::try_from(starting_offset).map_err(|_| {
        Error::new(ErrorKind::OutOfRange, format!("starting_offset is negative: {starting_offset}: begin at 0"))
    })?;
    let (base, target) = (base.map(SnapshotHandle::ours).transpose()?, target.ours()?);
    if let Some(base) = &base
        && base.instance != target.instance
    {
        return Err(Error::invalid(format!(
            "base_snapshot_id lies in instance {} and target_snapshot_id in {}: name two of one volume",
            base.instance, target.instance
        )));
    }
    Ok(GetBlocks { base, target, from, max_results, secrets })
}

/// Ranges as CSI carries them.
pub fn ranges_to_wire(ranges: &[Range<u64>]) -> Vec<csi::BlockMetadata> {
    let to_wire = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let metadata = |range: &Range<u64>| csi::BlockMetadata {
        byte_offset: to_wire(range.start),
        size_bytes: to_wire(range.end.saturating_sub(range.start)),
    };
    ranges.iter().map(metadata).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const ID: &str = "s.mzxw6ytboimzxw6ytboimzxw6y.a.a4dqobyha4dqobyha4dqobyha4";

    fn allocated(starting_offset: i64, max_results: i32) -> Result<GetBlocks> {
        let snapshot_id = ID.into();
        get_metadata_allocated(csi::GetMetadataAllocatedRequest {
            snapshot_id,
            starting_offset,
            max_results,
            ..Default::default()
        })
    }

    #[test]
    fn the_number_of_results_is_the_clients_where_it_is_not_too_large() {
        for (wanted, most) in [(0, MOST), (1, 1), (100, 100), (i32::MAX, MOST)] {
            assert_eq!(allocated(7, wanted).unwrap().max_results, most);
        }
        assert_eq!(allocated(0, -1).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(allocated(-1, 0).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn the_largest_message_is_one_that_clients_take() {
        let block_metadata = ranges_to_wire(&vec![i64::MAX as u64 - 1..u64::MAX; MOST]);
        assert_eq!(block_metadata.len(), MOST);
        let message = csi::GetMetadataDeltaResponse {
            block_metadata_type: i32::MAX,
            volume_capacity_bytes: i64::MAX,
            block_metadata,
        };
        assert!(message.encoded_len() < 4 << 20, "{}", message.encoded_len());
    }

    #[test]
    fn each_snapshot_of_a_difference_is_required_and_both_are_of_one_instance() {
        let delta = |base: &str, target: &str| {
            let (base_snapshot_id, target_snapshot_id) = (base.into(), target.into());
            let request = csi::GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, ..Default::default() };
            get_metadata_delta(request).map(drop).map_err(|error| (error.kind(), error.report()))
        };
        let elsewhere = ID.replace("mzxw", "azxw");
        delta(ID, ID).unwrap();
        for (base, target, kind, word) in [
            ("", ID, ErrorKind::InvalidArgument, "base_snapshot_id is missing"),
            (ID, "", ErrorKind::InvalidArgument, "target_snapshot_id is missing"),
            (ID, &elsewhere, ErrorKind::InvalidArgument, "instance"),
            ("nobody's", ID, ErrorKind::NotFound, "nobody's"),
            (ID, "nobody's", ErrorKind::NotFound, "nobody's"),
        ] {
            let (found, report) = delta(base, target).unwrap_err();
            assert_eq!(found, kind, "{report}");
            assert!(report.contains(word), "{report}");
        }
    }
}
