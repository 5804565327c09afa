//! A client that waits for each answer, for tests that read like the life of a volume.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_csi_proto::csi::v1::group_controller_client::GroupControllerClient;
use dunnage_csi_proto::csi::v1::identity_client::IdentityClient;
use dunnage_csi_proto::csi::v1::node_client::NodeClient;
use dunnage_csi_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::{Fault, connect, fault};

/// What a call may take unless a test says otherwise: only a hang comes near.
const LIMIT: Duration = Duration::from_secs(60);

/// A client of one plugin. Clones share its connection, and may be used by several threads.
#[derive(Debug, Clone)]
pub struct Client {
    runtime: Arc<Runtime>,
    channel: Channel,
    deadline: Duration,
    under: Option<Arc<Under>>,
}

/// What goes wrong while a client calls, and in which test.
#[derive(Debug)]
struct Under {
    test: String,
    driver: String,
    fault: Fault,
}

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// Nobody accepts there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let channel = runtime.block_on(connect(socket))?;
        Ok(Self { runtime: Arc::new(runtime), channel, deadline: LIMIT, under: None })
    }

    /// The same client with another deadline for each call, which the plugin is told.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same client for calls to this driver that are made while something is wrong, each of which is noted for
    /// `docs/matrix.md`. To be made by the test's own thread, whose name is the test's.
    #[must_use]
    pub fn under(&self, driver: &str, fault: Fault) -> Self {
        let under = Under { test: fault::test(), driver: driver.into(), fault };
        Self { under: Some(Arc::new(under)), ..self.clone() }
    }

    /// `request` is the name of the message: that of the RPC with a word behind it.
    fn note(&self, request: &str) {
        if let Some(Under { test, driver, fault }) = self.under.as_deref() {
            fault::note(test, driver, request.trim_end_matches("Request"), *fault);
        }
    }

    /// The deadline as a client of a later call sends it, with the request.
    fn request<T>(&self, request: T) -> Request<T> {
        let mut request = Request::new(request);
        request.set_timeout(self.deadline);
        request
    }

    /// Runs a future on the client's runtime, with its connection: for what no method here does.
    pub fn run<F: Future>(&self, call: impl FnOnce(Channel) -> F) -> F::Output {
        let _inside = self.runtime.enter();
        self.runtime.block_on(call(self.channel.clone()))
    }
}

macro_rules! calls {
    ($($client:ident { $($method:ident: $request:ident -> $response:ident,)* })*) => {
        #[allow(missing_docs, clippy::missing_errors_doc, reason = "each is the RPC of its name")]
        impl Client {
            $($(
                pub fn $method(&self, request: csi::$request) -> Result<csi::$response, Status> {
                    self.note(stringify!($request));
                    let request = self.request(request);
                    self.run(|channel| async {
                        $client::new(channel).$method(request).await.map(Response::into_inner)
                    })
                }
            )*)*
        }
    };
}

calls! {
    IdentityClient {
        get_plugin_info: GetPluginInfoRequest -> GetPluginInfoResponse,
        get_plugin_capabilities: GetPluginCapabilitiesRequest -> GetPluginCapabilitiesResponse,
        probe: ProbeRequest -> ProbeResponse,
    }
    ControllerClient {
        create_volume: CreateVolumeRequest -> CreateVolumeResponse,
        delete_volume: DeleteVolumeRequest -> DeleteVolumeResponse,
        controller_publish_volume: ControllerPublishVolumeRequest -> ControllerPublishVolumeResponse,
        controller_unpublish_volume: ControllerUnpublishVolumeRequest -> ControllerUnpublishVolumeResponse,
        validate_volume_capabilities: ValidateVolumeCapabilitiesRequest -> ValidateVolumeCapabilitiesResponse,
        list_volumes: ListVolumesRequest -> ListVolumesResponse,
        controller_list_volume_health: ControllerListVolumeHealthRequest -> ControllerListVolumeHealthResponse,
        controller_get_volume_health: ControllerGetVolumeHealthRequest -> ControllerGetVolumeHealthResponse,
        get_capacity: GetCapacityRequest -> GetCapacityResponse,
        controller_get_capabilities: ControllerGetCapabilitiesRequest -> ControllerGetCapabilitiesResponse,
        create_snapshot: CreateSnapshotRequest -> CreateSnapshotResponse,
        delete_snapshot: DeleteSnapshotRequest -> DeleteSnapshotResponse,
        list_snapshots: ListSnapshotsRequest -> ListSnapshotsResponse,
        get_snapshot: GetSnapshotRequest -> GetSnapshotResponse,
        controller_expand_volume: ControllerExpandVolumeRequest -> ControllerExpandVolumeResponse,
        controller_get_volume: ControllerGetVolumeRequest -> ControllerGetVolumeResponse,
        controller_modify_volume: ControllerModifyVolumeRequest -> ControllerModifyVolumeResponse,
    }
    NodeClient {
        node_stage_volume: NodeStageVolumeRequest -> NodeStageVolumeResponse,
        node_unstage_volume: NodeUnstageVolumeRequest -> NodeUnstageVolumeResponse,
        node_publish_volume: NodePublishVolumeRequest -> NodePublishVolumeResponse,
        node_unpublish_volume: NodeUnpublishVolumeRequest -> NodeUnpublishVolumeResponse,
        node_get_volume_stats: NodeGetVolumeStatsRequest -> NodeGetVolumeStatsResponse,
        node_expand_volume: NodeExpandVolumeRequest -> NodeExpandVolumeResponse,
        node_get_capabilities: NodeGetCapabilitiesRequest -> NodeGetCapabilitiesResponse,
        node_get_info: NodeGetInfoRequest -> NodeGetInfoResponse,
        node_get_volume_health: NodeGetVolumeHealthRequest -> NodeGetVolumeHealthResponse,
        node_get_storage_health: NodeGetStorageHealthRequest -> NodeGetStorageHealthResponse,
    }
    GroupControllerClient {
        group_controller_get_capabilities: GroupControllerGetCapabilitiesRequest -> GroupControllerGetCapabilitiesResponse,
        create_volume_group_snapshot: CreateVolumeGroupSnapshotRequest -> CreateVolumeGroupSnapshotResponse,
        delete_volume_group_snapshot: DeleteVolumeGroupSnapshotRequest -> DeleteVolumeGroupSnapshotResponse,
        get_volume_group_snapshot: GetVolumeGroupSnapshotRequest -> GetVolumeGroupSnapshotResponse,
    }
}

impl Client {
    /// GetMetadataAllocated, up to the first message.
    ///
    /// # Errors
    /// The status of the call or of its stream.
    pub fn get_metadata_allocated(&self, request: csi::GetMetadataAllocatedRequest) -> Result<(), Status> {
        self.note("GetMetadataAllocated");
        let request = self.request(request);
        self.run(|channel| async {
            SnapshotMetadataClient::new(channel).get_metadata_allocated(request).await?.into_inner().message().await
        })
        .map(drop)
    }

    /// GetMetadataDelta, up to the first message.
    ///
    /// # Errors
    /// The status of the call or of its stream.
    pub fn get_metadata_delta(&self, request: csi::GetMetadataDeltaRequest) -> Result<(), Status> {
        self.note("GetMetadataDelta");
        let request = self.request(request);
        self.run(|channel| async {
            SnapshotMetadataClient::new(channel).get_metadata_delta(request).await?.into_inner().message().await
        })
        .map(drop)
    }
}
