//! The SnapshotMetadata service.
//!
//! Ranges are of VARIABLE_LENGTH, which extents are, unless the configuration says for a backend that its clients want
//! blocks of one size: then of FIXED_LENGTH, with as many more of them as extents are larger than a block. A stream is read page by page as its client takes it: nothing of the backend is held while
//! it does not, and it ends where the client hangs up.

use std::ops::Range;
use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::BlockMetadataType;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadata;
use dunnage_driver_api::{Bytes, Context};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::{Answer, Call, refused};
use super::{Services, Shared};
use crate::operations::Lane;
use crate::registry::{Blocks, ServedBackend};
use crate::wire;

#[tonic::async_trait]
impl SnapshotMetadata for Services {
    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Answer<BoxStream<csi::GetMetadataAllocatedResponse>> {
        let shared = self.offering(self.0.plugin.offers.snapshot_metadata, "GetMetadataAllocated")?;
        let call = Call::of("GetMetadataAllocated", &request);
        let request = wire::get_metadata_allocated(request.into_inner()).map_err(refused)?;
        let pages = pages(shared, call, request).await?;
        let answers = pages.map_ok(|Page { style, capacity, ranges }| csi::GetMetadataAllocatedResponse {
            block_metadata_type: style.into(),
            volume_capacity_bytes: capacity.to_wire(),
            block_metadata: wire::ranges_to_wire(&ranges),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Answer<BoxStream<csi::GetMetadataDeltaResponse>> {
        let shared = self.offering(self.0.plugin.offers.snapshot_metadata, "GetMetadataDelta")?;
        let call = Call::of("GetMetadataDelta", &request);
        let request = wire::get_metadata_delta(request.into_inner()).map_err(refused)?;
        let pages = pages(shared, call, request).await?;
        let answers = pages.map_ok(|Page { style, capacity, ranges }| csi::GetMetadataDeltaResponse {
            block_metadata_type: style.into(),
            volume_capacity_bytes: capacity.to_wire(),
            block_metadata: wire::ranges_to_wire(&ranges),
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// What one message says.
struct Page {
    style: BlockMetadataType,
    capacity: Bytes,
    ranges: Vec<Range<u64>>,
}

/// The pages of a stream. Where there is nothing to tell, the only one is empty: the client learns the capacity.
async fn pages(
    shared: &Arc<Shared>,
    call: Call,
    request: wire::GetBlocks,
) -> Result<impl Stream<Item = Result<Page, Status>> + Send + use<>, Status> {
    let wire::GetBlocks { base, target, from, max_results, secrets } = request;
    let call = call.with_secrets(secrets);
    let backend = shared.plugin.backend_of_snapshot(&target).map_err(refused)?;
    let lane = Some(Lane::ReadsOfSnapshot(target.key.clone()));
    let begin = move |_: &Shared, backend: &ServedBackend, cx: &Context| backend.blocks(cx, base, target, from);
    let blocks = shared.read_in(call.clone(), backend, lane, begin).await?;
    let first = (shared.clone(), call, Some(blocks), true);
    Ok(stream::try_unfold(first, move |(shared, call, mut blocks, is_first)| async move {
        while let Some(told) = blocks.take() {
            let (style, capacity) = (style(&told), told.capacity());
            let (told, page) = next(&shared, &call, told, max_results).await?;
            blocks = page.is_some().then_some(told);
            let ranges = page.unwrap_or_default();
            if !ranges.is_empty() || (is_first && blocks.is_none()) {
                return Ok(Some((Page { style, capacity, ranges }, (shared, call, blocks, false))));
            }
        }
        Ok(None)
    }))
}

fn style(blocks: &Blocks) -> BlockMetadataType {
    if blocks.are_fixed() { BlockMetadataType::FixedLength } else { BlockMetadataType::VariableLength }
}

/// One page. Its backend is found anew: it may have been closed since the last one.
async fn next(
    shared: &Arc<Shared>,
    call: &Call,
    mut blocks: Blocks,
    limit: usize,
) -> Result<(Blocks, Option<Vec<Range<u64>>>), Status> {
    let backend = shared.plugin.backend_of_snapshot(blocks.target()).map_err(refused)?;
    let lane = Some(Lane::ReadsOfSnapshot(blocks.target().key.clone()));
    shared
        .read_in(call.next_page(), backend, lane, move |_, backend, cx| {
            let page = backend.next_blocks(cx, &mut blocks, limit)?;
            Ok((blocks, page))
        })
        .await
}
