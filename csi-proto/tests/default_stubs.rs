//! A server that writes no RPC is a server still: each answers UNIMPLEMENTED.

use dunnage_csi_proto::csi::v1;
use dunnage_csi_proto::csi::v1::controller_server::Controller;
use dunnage_csi_proto::csi::v1::group_controller_server::GroupController;
use dunnage_csi_proto::csi::v1::identity_server::Identity;
use dunnage_csi_proto::csi::v1::node_server::Node;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadata;
use dunnage_csi_proto::pluginregistration::InfoRequest;
use dunnage_csi_proto::pluginregistration::registration_server::Registration;
use tonic::{Code, Request, Response, Status};

struct Nothing;

impl Identity for Nothing {}
impl Controller for Nothing {}
impl GroupController for Nothing {}
impl SnapshotMetadata for Nothing {}
impl Node for Nothing {}
impl Registration for Nothing {}

fn code<T>(answer: Result<Response<T>, Status>) -> Option<Code> {
    answer.err().map(|status| status.code())
}

#[tokio::test]
async fn an_rpc_that_is_not_written_answers_unimplemented() {
    let probe = Nothing.probe(Request::new(v1::ProbeRequest {})).await;
    assert_eq!(code(probe), Some(Code::Unimplemented));
    let create = Nothing.create_volume(Request::new(v1::CreateVolumeRequest::default())).await;
    assert_eq!(code(create), Some(Code::Unimplemented));
    let get_info = Nothing.get_info(Request::new(InfoRequest {})).await;
    assert_eq!(code(get_info), Some(Code::Unimplemented));
}

#[tokio::test]
async fn a_stream_that_is_not_written_answers_unimplemented() {
    let request = Request::new(v1::GetMetadataDeltaRequest::default());
    assert_eq!(code(Nothing.get_metadata_delta(request).await), Some(Code::Unimplemented));
}
