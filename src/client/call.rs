//! Every RPC of the interface as a message that can be sent.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;

use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_csi_proto::csi::v1::group_controller_client::GroupControllerClient;
use dunnage_csi_proto::csi::v1::identity_client::IdentityClient;
use dunnage_csi_proto::csi::v1::node_client::NodeClient;
use dunnage_csi_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use dunnage_csi_proto::csi::v1::*;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::plugin::{LARGEST_ANSWER, bounded};

/// A request, with the RPC that it is for.
pub trait Call: Clone + Debug + Send + Sync + 'static {
    /// What the RPC answers; all messages of a stream.
    type Answer: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// The RPC, in the words of the specification.
    const NAME: &'static str;

    /// Sends it, with the deadline that every call has.
    fn send(self, channel: Channel) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// The secrets that go with it, where the RPC has any.
    fn secrets(&mut self) -> Option<&mut HashMap<String, String>> {
        None
    }
}

macro_rules! calls {
    ($($client:ident { $($name:literal: $request:ident by $method:ident -> $response:ident $(, $secrets:ident)?;)* })*) => {
        $($(impl Call for $request {
            type Answer = $response;
            const NAME: &'static str = $name;

            async fn send(self, channel: Channel) -> Result<$response, Status> {
                let mut client = $client::new(channel).max_decoding_message_size(LARGEST_ANSWER);
                client.$method(bounded(self)).await.map(Response::into_inner)
            }

            $(fn secrets(&mut self) -> Option<&mut HashMap<String, String>> {
                Some(&mut self.$secrets)
            })?
        })*)*

        /// The names of all RPCs that answer with one message.
        pub const UNARY_RPCS: &[&str] = &[$($($name),*),*];
    };
}

calls! {
    IdentityClient {
        "GetPluginInfo": GetPluginInfoRequest by get_plugin_info -> GetPluginInfoResponse;
        "GetPluginCapabilities":
            GetPluginCapabilitiesRequest by get_plugin_capabilities -> GetPluginCapabilitiesResponse;
        "Probe": ProbeRequest by probe -> ProbeResponse;
    }
    ControllerClient {
        "CreateVolume": CreateVolumeRequest by create_volume -> CreateVolumeResponse, secrets;
        "DeleteVolume": DeleteVolumeRequest by delete_volume -> DeleteVolumeResponse, secrets;
        "ControllerPublishVolume":
            ControllerPublishVolumeRequest by controller_publish_volume -> ControllerPublishVolumeResponse, secrets;
        "ControllerUnpublishVolume": ControllerUnpublishVolumeRequest
            by controller_unpublish_volume -> ControllerUnpublishVolumeResponse, secrets;
        "ValidateVolumeCapabilities": ValidateVolumeCapabilitiesRequest
            by validate_volume_capabilities -> ValidateVolumeCapabilitiesResponse, secrets;
        "ListVolumes": ListVolumesRequest by list_volumes -> ListVolumesResponse;
        "ControllerListVolumeHealth": ControllerListVolumeHealthRequest
            by controller_list_volume_health -> ControllerListVolumeHealthResponse, secrets;
        "ControllerGetVolumeHealth": ControllerGetVolumeHealthRequest
            by controller_get_volume_health -> ControllerGetVolumeHealthResponse, secrets;
        "GetCapacity": GetCapacityRequest by get_capacity -> GetCapacityResponse;
        "ControllerGetCapabilities":
            ControllerGetCapabilitiesRequest by controller_get_capabilities -> ControllerGetCapabilitiesResponse;
        "CreateSnapshot": CreateSnapshotRequest by create_snapshot -> CreateSnapshotResponse, secrets;
        "DeleteSnapshot": DeleteSnapshotRequest by delete_snapshot -> DeleteSnapshotResponse, secrets;
        "ListSnapshots": ListSnapshotsRequest by list_snapshots -> ListSnapshotsResponse, secrets;
        "GetSnapshot": GetSnapshotRequest by get_snapshot -> GetSnapshotResponse, secrets;
        "ControllerExpandVolume":
            ControllerExpandVolumeRequest by controller_expand_volume -> ControllerExpandVolumeResponse, secrets;
        "ControllerGetVolume": ControllerGetVolumeRequest by controller_get_volume -> ControllerGetVolumeResponse;
        "ControllerModifyVolume":
            ControllerModifyVolumeRequest by controller_modify_volume -> ControllerModifyVolumeResponse, secrets;
    }
    GroupControllerClient {
        "GroupControllerGetCapabilities": GroupControllerGetCapabilitiesRequest
            by group_controller_get_capabilities -> GroupControllerGetCapabilitiesResponse;
        "CreateVolumeGroupSnapshot": CreateVolumeGroupSnapshotRequest
            by create_volume_group_snapshot -> CreateVolumeGroupSnapshotResponse, secrets;
        "DeleteVolumeGroupSnapshot": DeleteVolumeGroupSnapshotRequest
            by delete_volume_group_snapshot -> DeleteVolumeGroupSnapshotResponse, secrets;
        "GetVolumeGroupSnapshot":
            GetVolumeGroupSnapshotRequest by get_volume_group_snapshot -> GetVolumeGroupSnapshotResponse, secrets;
    }
    NodeClient {
        "NodeStageVolume": NodeStageVolumeRequest by node_stage_volume -> NodeStageVolumeResponse, secrets;
        "NodeUnstageVolume": NodeUnstageVolumeRequest by node_unstage_volume -> NodeUnstageVolumeResponse;
        "NodePublishVolume": NodePublishVolumeRequest by node_publish_volume -> NodePublishVolumeResponse, secrets;
        "NodeUnpublishVolume": NodeUnpublishVolumeRequest by node_unpublish_volume -> NodeUnpublishVolumeResponse;
        "NodeGetVolumeStats": NodeGetVolumeStatsRequest by node_get_volume_stats -> NodeGetVolumeStatsResponse;
        "NodeGetVolumeHealth": NodeGetVolumeHealthRequest by node_get_volume_health -> NodeGetVolumeHealthResponse;
        "NodeGetStorageHealth":
            NodeGetStorageHealthRequest by node_get_storage_health -> NodeGetStorageHealthResponse, secrets;
        "NodeExpandVolume": NodeExpandVolumeRequest by node_expand_volume -> NodeExpandVolumeResponse, secrets;
        "NodeGetCapabilities": NodeGetCapabilitiesRequest by node_get_capabilities -> NodeGetCapabilitiesResponse;
        "NodeGetInfo": NodeGetInfoRequest by node_get_info -> NodeGetInfoResponse;
    }
}

macro_rules! streams {
    ($($name:literal: $request:ident by $method:ident -> $response:ident;)*) => {
        $(impl Call for $request {
            type Answer = Vec<$response>;
            const NAME: &'static str = $name;

            async fn send(self, channel: Channel) -> Result<Vec<$response>, Status> {
                let request: Request<Self> = bounded(self);
                let mut stream = SnapshotMetadataClient::new(channel).$method(request).await?.into_inner();
                let mut messages = Vec::new();
                while let Some(message) = stream.message().await? {
                    messages.push(message);
                }
                Ok(messages)
            }

            fn secrets(&mut self) -> Option<&mut HashMap<String, String>> {
                Some(&mut self.secrets)
            }
        })*
    };
}

streams! {
    "GetMetadataAllocated": GetMetadataAllocatedRequest by get_metadata_allocated -> GetMetadataAllocatedResponse;
    "GetMetadataDelta": GetMetadataDeltaRequest by get_metadata_delta -> GetMetadataDeltaResponse;
}
