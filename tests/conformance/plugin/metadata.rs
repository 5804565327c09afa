//! The blocks of snapshots.

use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadata;
use dunnage_csi_proto::csi::v1::*;
use tokio_stream::iter;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::disk::failed;
use super::{Answer, Plugin};
use crate::mutant::Mutant;

const BLOCK: usize = 64 << 10;

impl Plugin {
    fn content(&self, id: &str) -> Result<Vec<u8>, Status> {
        self.required("snapshot_id", id, Mutant::MetadataWithoutId)?;
        let known = self.state().snapshots.contains_key(id);
        match known {
            true => std::fs::read(self.snapshot_path(id)).map_err(failed),
            false if self.is(Mutant::MetadataOfUnknown) || self.is(Mutant::MetadataWithoutId) => Ok(vec![0; 4 << 20]),
            false => Err(Status::not_found(format!("there is no snapshot {id}"))),
        }
    }

    /// The style of the message of this number.
    fn style(&self, message: usize) -> BlockMetadataType {
        match self.is(Mutant::MetadataChangesStyle) && message > 0 {
            true => BlockMetadataType::VariableLength,
            false => BlockMetadataType::FixedLength,
        }
    }

    /// The blocks for which `holds`, in messages of at most so many.
    fn blocks(
        &self,
        bytes: usize,
        (from, most): (i64, i32),
        holds: impl Fn(usize) -> bool,
    ) -> Result<(i64, Vec<Vec<BlockMetadata>>), Status> {
        let capacity = i64::try_from(bytes).unwrap();
        if (from < 0 || from > capacity) && !self.is(Mutant::MetadataPastTheEnd) {
            return Err(Status::out_of_range("the offset is not in the volume"));
        }
        let size = i64::try_from(BLOCK).unwrap();
        let numbers = (0..bytes.div_ceil(BLOCK)).filter(|number| holds(*number));
        let mut all: Vec<_> = numbers
            .map(|number| BlockMetadata { byte_offset: i64::try_from(number).unwrap() * size, size_bytes: size })
            .filter(|block| from < block.byte_offset + block.size_bytes || self.is(Mutant::MetadataIgnoresOffset))
            .collect();
        if self.is(Mutant::MetadataMissesTheLast) {
            all.pop();
        }
        if self.is(Mutant::MetadataOverlaps) {
            all.iter_mut().for_each(|block| block.size_bytes *= 20);
        }
        if self.is(Mutant::MetadataOfUnequalSize) {
            all.iter_mut().take(1).for_each(|block| block.size_bytes += 1);
        }
        let most = match usize::try_from(most) {
            Ok(most @ 1..) if !self.is(Mutant::MetadataIgnoresMaxResults) => most,
            _ => 1000,
        };
        let mut messages: Vec<Vec<_>> = all.chunks(most).map(<[_]>::to_vec).collect();
        if messages.is_empty() {
            messages.push(Vec::new());
        }
        Ok((capacity, messages))
    }
}

/// The range of a block in what is there.
fn block(content: &[u8], number: usize) -> &[u8] {
    &content[number * BLOCK..content.len().min((number + 1) * BLOCK)]
}

#[tonic::async_trait]
impl SnapshotMetadata for Plugin {
    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Answer<BoxStream<GetMetadataAllocatedResponse>> {
        let request = request.into_inner();
        let content = self.content(&request.snapshot_id)?;
        let range = (request.starting_offset, request.max_results);
        let (capacity, messages) =
            self.blocks(content.len(), range, |number| block(&content, number).iter().any(|byte| *byte != 0))?;
        let answers: Vec<Result<_, Status>> = messages
            .into_iter()
            .enumerate()
            .map(|(number, block_metadata)| {
                Ok(GetMetadataAllocatedResponse {
                    block_metadata_type: self.style(number).into(),
                    volume_capacity_bytes: capacity,
                    block_metadata,
                })
            })
            .collect();
        Ok(Response::new(Box::pin(iter(answers))))
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> Answer<BoxStream<GetMetadataDeltaResponse>> {
        let request = request.into_inner();
        let base = self.content(&request.base_snapshot_id)?;
        let target = self.content(&request.target_snapshot_id)?;
        let range = (request.starting_offset, request.max_results);
        let forgets = self.is(Mutant::DeltaForgetsOverwrites);
        let (capacity, messages) = self.blocks(target.len(), range, |number| {
            let (old, new) = (block(&base, number), block(&target, number));
            old != new && !(forgets && old.iter().any(|byte| *byte != 0))
        })?;
        let answers: Vec<Result<_, Status>> = messages
            .into_iter()
            .enumerate()
            .map(|(number, block_metadata)| {
                Ok(GetMetadataDeltaResponse {
                    block_metadata_type: self.style(number).into(),
                    volume_capacity_bytes: capacity,
                    block_metadata,
                })
            })
            .collect();
        Ok(Response::new(Box::pin(iter(answers))))
    }
}
