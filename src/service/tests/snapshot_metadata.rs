//! Streams of changed blocks, over a driver that tells what a test wants.
#![allow(clippy::single_range_in_vec_init, reason = "a page of one range")]

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunnage_csi_proto::csi::v1::identity_server::Identity;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadata;
use dunnage_driver_api::{BlockRanges, Bytes, ChangedBlocks, Context, Result, Snapshot};
use futures_util::{StreamExt, TryStreamExt};
use tonic::Status;
use tonic::codegen::BoxStream;

use super::fake::{services, snapshotting};
use super::snapshots::{cut, volume};
use super::*;
use crate::config::BlockSize;
use crate::registry::ServedBackend;
use crate::service::Services;

/// What a driver tells, page by page, and how often it was asked.
#[derive(Clone)]
struct Script {
    pages: VecDeque<Vec<Range<u64>>>,
    asked: Arc<AtomicUsize>,
}

impl Script {
    fn new(pages: impl IntoIterator<Item = Vec<Range<u64>>>) -> Arc<Self> {
        Arc::new(Self { pages: pages.into_iter().collect(), asked: Arc::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ChangedBlocks for Script {
    fn allocated(&self, _: &Context, _: &Snapshot, _: u64) -> Result<Box<dyn BlockRanges>> {
        Ok(Box::new(self.clone()))
    }

    fn changed(&self, _: &Context, _: &Snapshot, _: &Snapshot, _: u64) -> Result<Box<dyn BlockRanges>> {
        Ok(Box::new(self.clone()))
    }
}

impl BlockRanges for Script {
    fn next(&mut self, _: &Context, _: usize) -> Result<Option<Vec<Range<u64>>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.pages.pop_front())
    }
}

fn telling(name: &str, script: &Arc<Script>) -> Arc<ServedBackend> {
    telling_in_blocks(name, script, None)
}

fn telling_in_blocks(name: &str, script: &Arc<Script>, size: Option<u64>) -> Arc<ServedBackend> {
    let plain = Arc::into_inner(snapshotting(name)).unwrap();
    let backend = plain.backend.with_changed_blocks(script.clone());
    let mut configured = Arc::into_inner(plain.configured).unwrap();
    configured.changed_block_size = size.map(|size| BlockSize::try_from(Bytes::new(size)).unwrap());
    Arc::new(ServedBackend { configured: Arc::new(configured), backend })
}

struct Rig {
    services: Services,
    /// Of one volume, of 4096 bytes.
    base: String,
    target: String,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new(script: &Arc<Script>) -> Self {
        Self::in_blocks(script, None).await
    }

    async fn in_blocks(script: &Arc<Script>, size: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backends = ["a-one", "b-two"].map(|name| telling_in_blocks(name, script, size));
        let services = services(backends.into(), folder.path());
        let volume = volume(&services, "v", "a-one").await;
        let base = cut(&services, "base", &volume).await.unwrap().snapshot_id;
        let target = cut(&services, "target", &volume).await.unwrap().snapshot_id;
        Self { services, base, target, _folder: folder }
    }

    async fn allocated(&self, id: &str, starting_offset: i64, max_results: i32) -> Told {
        let snapshot_id = id.into();
        let request =
            csi::GetMetadataAllocatedRequest { snapshot_id, starting_offset, max_results, ..Default::default() };
        Ok(self.services.get_metadata_allocated(Request::new(request)).await?.into_inner())
    }

    async fn delta(&self, base: &str, target: &str) -> Result<Vec<csi::GetMetadataDeltaResponse>, Status> {
        let (base_snapshot_id, target_snapshot_id) = (base.into(), target.into());
        let request = csi::GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, ..Default::default() };
        self.services.get_metadata_delta(Request::new(request)).await?.into_inner().try_collect().await
    }
}

type Told = Result<BoxStream<csi::GetMetadataAllocatedResponse>, Status>;

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn each_page_with_something_in_it_is_a_message_that_says_the_capacity() {
    let script = Script::new([vec![], vec![0..1, 2..4], vec![], vec![4..4096], vec![]]);
    let rig = Rig::new(&script).await;
    let messages = rig.delta(&rig.base, &rig.target).await.unwrap();
    let ranges = |one: &csi::GetMetadataDeltaResponse| {
        one.block_metadata.iter().map(|range| (range.byte_offset, range.size_bytes)).collect::<Vec<_>>()
    };
    assert_eq!(messages.iter().map(ranges).collect::<Vec<_>>(), [vec![(0, 1), (2, 2)], vec![(4, 4092)]]);
    for message in messages {
        assert_eq!(message.block_metadata_type(), csi::BlockMetadataType::VariableLength);
        assert_eq!(message.volume_capacity_bytes, 4096);
    }
}

#[tokio::test]
async fn where_there_is_nothing_to_tell_the_capacity_is() {
    for pages in [vec![], vec![vec![], vec![]]] {
        let rig = Rig::new(&Script::new(pages)).await;
        let messages: Vec<_> = rig.allocated(&rig.target, 4096, 0).await.unwrap().try_collect().await.unwrap();
        assert_eq!((messages.len(), messages[0].volume_capacity_bytes), (1, 4096));
        assert!(messages[0].block_metadata.is_empty());
    }
}

#[tokio::test]
async fn with_a_block_size_each_message_has_blocks_of_it_and_no_more_than_are_wanted() {
    // Nothing; two that share a block; one of many blocks; one that begins where the last block was.
    let script = Script::new([vec![], vec![0..1, 300..301], vec![], vec![1000..2000, 2040..2050]]);
    for (size, wanted) in [(512, vec![0, 512, 1024, 1536, 2048]), (1024, vec![0, 1024, 2048]), (1 << 20, vec![0])] {
        let rig = Rig::in_blocks(&script, Some(size)).await;
        let size = size.min(4096).cast_signed();
        let messages: Vec<_> = rig.allocated(&rig.target, 0, 2).await.unwrap().try_collect().await.unwrap();
        for message in &messages {
            assert_eq!(message.block_metadata_type(), csi::BlockMetadataType::FixedLength);
            assert!((1..=2).contains(&message.block_metadata.len()), "{message:?}");
        }
        let blocks = messages.iter().flat_map(|message| &message.block_metadata);
        let told: Vec<_> = blocks.map(|block| (block.byte_offset, block.size_bytes)).collect();
        assert_eq!(told, wanted.into_iter().map(|start| (start, size)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn with_a_block_size_an_offset_within_a_block_has_that_block_and_the_rest() {
    let script = Script::new([vec![700..710, 3000..4096]]);
    let rig = Rig::in_blocks(&script, Some(1024)).await;
    let messages: Vec<_> = rig.allocated(&rig.target, 650, 0).await.unwrap().try_collect().await.unwrap();
    let told: Vec<_> = messages[0].block_metadata.iter().map(|block| block.byte_offset).collect();
    assert_eq!(told, [0, 2048, 3072]);
    assert!(rig.allocated(&rig.target, 4097, 0).await.is_err());
    let empty = Rig::in_blocks(&Script::new([]), Some(1024)).await;
    let messages: Vec<_> = empty.allocated(&empty.target, 4096, 0).await.unwrap().try_collect().await.unwrap();
    assert_eq!((messages.len(), messages[0].block_metadata_type()), (1, csi::BlockMetadataType::FixedLength));
}

#[tokio::test]
async fn with_a_block_size_a_snapshot_that_is_deleted_meanwhile_ends_the_stream_with_an_error() {
    let script = Script::new([vec![0..4096]]);
    let rig = Rig::in_blocks(&script, Some(512)).await;
    let mut told = rig.allocated(&rig.target, 0, 1).await.unwrap();
    told.next().await.unwrap().unwrap();
    let delete = csi::DeleteSnapshotRequest { snapshot_id: rig.target.clone(), ..Default::default() };
    rig.services.delete_snapshot(Request::new(delete)).await.unwrap();
    assert_eq!(code(told.next().await.unwrap()), Code::NotFound);
}

#[tokio::test]
async fn nothing_is_asked_of_a_driver_while_the_client_does_not_read() {
    let script = Script::new((0..1000).map(|at| vec![at..at + 1]));
    let rig = Rig::new(&script).await;
    let mut told = rig.allocated(&rig.target, 0, 1).await.unwrap();
    told.next().await.unwrap().unwrap();
    told.next().await.unwrap().unwrap();
    assert_eq!(script.asked(), 2);
    // The one thread of the backend is free for others.
    let get = csi::GetSnapshotRequest { snapshot_id: rig.target.clone(), ..Default::default() };
    rig.services.get_snapshot(Request::new(get)).await.unwrap();
    drop(told);
    assert_eq!(script.asked(), 2);
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_meanwhile_ends_the_stream_with_an_error() {
    let script = Script::new((0..1000).map(|at| vec![at..at + 1]));
    let rig = Rig::new(&script).await;
    let mut told = rig.allocated(&rig.target, 0, 1).await.unwrap();
    told.next().await.unwrap().unwrap();
    let delete = csi::DeleteSnapshotRequest { snapshot_id: rig.target.clone(), ..Default::default() };
    rig.services.delete_snapshot(Request::new(delete)).await.unwrap();
    let error = told.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(told.next().await.is_none());
    assert_eq!(script.asked(), 2);
}

#[tokio::test]
async fn what_is_asked_wrongly_has_the_code_of_the_spec() {
    let rig = Rig::new(&Script::new([])).await;
    let other = volume(&rig.services, "w", "a-one").await;
    let other = cut(&rig.services, "other", &other).await.unwrap().snapshot_id;
    let elsewhere = volume(&rig.services, "v", "b-two").await;
    let elsewhere = cut(&rig.services, "s", &elsewhere).await.unwrap().snapshot_id;
    let gone = cut(&rig.services, "gone", &volume(&rig.services, "v", "a-one").await).await.unwrap().snapshot_id;
    let delete = csi::DeleteSnapshotRequest { snapshot_id: gone.clone(), ..Default::default() };
    rig.services.delete_snapshot(Request::new(delete)).await.unwrap();
    for (id, offset, max, wanted) in [
        ("", 0, 0, Code::InvalidArgument),
        (&*rig.target, 0, -1, Code::InvalidArgument),
        (&rig.target, -1, 0, Code::OutOfRange),
        (&rig.target, 4097, 0, Code::OutOfRange),
        (&rig.target, 4096, 0, Code::Ok),
        ("nobody's", 0, 0, Code::NotFound),
        (&gone, 0, 0, Code::NotFound),
    ] {
        assert_eq!(code(rig.allocated(id, offset, max).await), wanted, "{id:?} {offset} {max}");
    }
    for (base, target, wanted) in [
        (&*rig.base, &*rig.target, Code::Ok),
        (&rig.target, &rig.target, Code::Ok),
        ("", &rig.target, Code::InvalidArgument),
        (&rig.base, "", Code::InvalidArgument),
        (&other, &rig.target, Code::InvalidArgument),
        (&elsewhere, &rig.target, Code::InvalidArgument),
        (&gone, &rig.target, Code::NotFound),
        (&rig.base, &gone, Code::NotFound),
        (&rig.base, "nobody's", Code::NotFound),
    ] {
        assert_eq!(code(rig.delta(base, target).await), wanted, "{base:?} {target:?}");
    }
}

#[tokio::test]
async fn what_a_driver_tells_wrongly_is_not_passed_on() {
    for page in
        [vec![1..2, 1..2], vec![3..4, 2..3], vec![0..2, 1..3], vec![0..4097], vec![7..7], vec![0..1, 1..2, 2..3]]
    {
        let rig = Rig::new(&Script::new([page.clone()])).await;
        let mut told = rig.allocated(&rig.target, 0, 2).await.unwrap();
        let error = told.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Internal, "{page:?}");
        assert!(error.message().contains("a-one"), "{error}");
    }
    // Behind the byte it all began from, and across two pages.
    let rig = Rig::new(&Script::new([vec![8..9], vec![8..9]])).await;
    assert_eq!(code(rig.allocated(&rig.target, 9, 0).await.unwrap().next().await.unwrap()), Code::Internal);
    let mut told = rig.allocated(&rig.target, 8, 0).await.unwrap();
    told.next().await.unwrap().unwrap();
    assert_eq!(code(told.next().await.unwrap()), Code::Internal);
}

#[tokio::test]
async fn the_service_is_advertised_where_all_backends_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new([]);
    for (backends, is_offered) in [
        (vec![telling("a-one", &script), telling("b-two", &script)], true),
        (vec![telling("a-one", &script), snapshotting("b-two")], false),
    ] {
        let services = services(backends, folder.path());
        let answer = services.get_plugin_capabilities(Request::new(Default::default())).await.unwrap().into_inner();
        let advertised = format!("{answer:?}").contains("SnapshotMetadataService");
        assert_eq!(advertised, is_offered, "{answer:?}");
        let refused = if is_offered { Code::InvalidArgument } else { Code::Unimplemented };
        assert_eq!(code(services.get_metadata_allocated(Request::new(Default::default())).await), refused);
        assert_eq!(code(services.get_metadata_delta(Request::new(Default::default())).await), refused);
    }
}
