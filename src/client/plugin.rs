//! A connection to a plugin, and one method for each call that an orchestrator makes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_csi_proto::csi::v1::identity_client::IdentityClient;
use dunnage_csi_proto::csi::v1::node_client::NodeClient;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetCapabilitiesRequest, CreateSnapshotRequest,
    CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, GetCapacityRequest, GetPluginCapabilitiesRequest,
    GetPluginInfoRequest, GroupControllerGetCapabilitiesRequest, ListSnapshotsRequest, ListVolumesRequest,
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest, Snapshot, Volume, VolumeCapability,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Response, Status};

use crate::client::{Call, Endpoint, Error, Offers, Result};

/// How long a call may take: what external-provisioner and its siblings give one, several times over.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A page of a list may be this large: a plugin whose pages are too large is measured, not cut off.
pub(super) const LARGEST_ANSWER: usize = 64 << 20;

/// A page of ListVolumes.
#[derive(Debug, Clone)]
pub struct Page {
    /// The volumes of this page.
    pub volumes: Vec<Volume>,
    /// What asks for the next page, empty after the last.
    pub next_token: String,
}

/// A plugin behind a socket. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub(crate) identity: IdentityClient<Channel>,
    pub(crate) controller: ControllerClient<Channel>,
    pub(crate) node: NodeClient<Channel>,
    channel: Channel,
    offers: Arc<Offers>,
    pid: Option<u32>,
}

/// The answer of a call, or the error that names the call.
pub(crate) fn answer<T>(rpc: &'static str, result: Result<Response<T>, Status>) -> Result<T> {
    result.map(Response::into_inner).map_err(|status| Error::rpc(rpc, &status))
}

/// A request with the deadline that every call has.
pub(crate) fn bounded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

impl Plugin {
    /// Connects, and asks what the plugin is and offers. The socket may appear while it waits, for at most `wait`.
    ///
    /// # Errors
    /// [`Error::Connect`] where nobody answers in time; [`Error::Rpc`] where one of the first questions fails.
    pub async fn connect(endpoint: &Endpoint, wait: Duration) -> Result<Self> {
        let stream = reach(endpoint, wait).await?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
        drop(stream);
        let path = endpoint.path().to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = tonic::transport::Endpoint::from_static("http://localhost")
            .timeout(DEADLINE)
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable(endpoint, wait, error))?;
        let mut plugin = Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()).max_decoding_message_size(LARGEST_ANSWER),
            node: NodeClient::new(channel.clone()),
            channel,
            offers: Arc::default(),
            pid: pid.filter(|pid| *pid != 0),
        };
        plugin.offers = Arc::new(plugin.ask_offers().await?);
        Ok(plugin)
    }

    /// What the plugin advertised when the connection was made.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// The process behind the socket, where the kernel says which (it may be in another pid namespace).
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Sends any request, and gives the answer as it came.
    ///
    /// # Errors
    /// The status that the plugin answered.
    pub async fn send<C: Call>(&self, request: C) -> Result<C::Answer, Status> {
        request.send(self.channel.clone()).await
    }

    async fn ask_offers(&self) -> Result<Offers> {
        let info =
            answer("GetPluginInfo", self.identity.clone().get_plugin_info(bounded(GetPluginInfoRequest {})).await)?;
        let mut offers =
            Offers { name: info.name, version: info.vendor_version, manifest: info.manifest, ..Offers::default() };
        let request = bounded(GetPluginCapabilitiesRequest {});
        let services = answer("GetPluginCapabilities", self.identity.clone().get_plugin_capabilities(request).await)?;
        offers.take_services(services.capabilities);
        if offers.services.contains(&PluginService::ControllerService) {
            let request = bounded(ControllerGetCapabilitiesRequest {});
            let answered = self.controller.clone().controller_get_capabilities(request).await;
            offers.take_controller(answer("ControllerGetCapabilities", answered)?.capabilities);
        }
        if offers.services.contains(&PluginService::GroupControllerService) {
            let request = GroupControllerGetCapabilitiesRequest {};
            let groups = self.send(request).await;
            let groups = groups.map_err(|status| Error::rpc("GroupControllerGetCapabilities", &status))?;
            offers.take_group(groups.capabilities);
        }
        match self.node.clone().node_get_capabilities(bounded(NodeGetCapabilitiesRequest {})).await {
            Ok(capabilities) => offers.take_node(capabilities.into_inner().capabilities),
            // A controller without a node service.
            Err(status) if status.code() == Code::Unimplemented => return Ok(offers),
            Err(status) => return Err(Error::rpc("NodeGetCapabilities", &status)),
        }
        let node = answer("NodeGetInfo", self.node.clone().node_get_info(bounded(NodeGetInfoRequest {})).await)?;
        offers.serves_node = true;
        offers.node_id = node.node_id;
        offers.topology = node.accessible_topology;
        Ok(offers)
    }

    /// Probe: whether the plugin is ready. No answer counts as ready, as the specification says.
    pub async fn probe(&self) -> Result<bool> {
        let probed = answer("Probe", self.identity.clone().probe(bounded(ProbeRequest {})).await)?;
        Ok(probed.ready.unwrap_or(true))
    }

    /// CreateVolume with any request.
    pub async fn create_volume(&self, request: CreateVolumeRequest) -> Result<Volume> {
        const RPC: &str = "CreateVolume";
        let created = answer(RPC, self.controller.clone().create_volume(bounded(request)).await)?;
        match created.volume {
            Some(volume) if !volume.volume_id.is_empty() => Ok(volume),
            Some(_) => Err(Error::Answer { rpc: RPC, what: "an empty volume_id".to_owned() }),
            None => Err(Error::Answer { rpc: RPC, what: "no volume".to_owned() }),
        }
    }

    /// DeleteVolume.
    pub async fn delete_volume(&self, volume_id: &str) -> Result<()> {
        let request = DeleteVolumeRequest { volume_id: volume_id.to_owned(), ..DeleteVolumeRequest::default() };
        answer("DeleteVolume", self.controller.clone().delete_volume(bounded(request)).await).map(drop)
    }

    /// CreateSnapshot with any request.
    pub async fn create_snapshot(&self, request: CreateSnapshotRequest) -> Result<Snapshot> {
        const RPC: &str = "CreateSnapshot";
        let cut = self.send(request).await.map_err(|status| Error::rpc(RPC, &status))?;
        cut.snapshot.ok_or_else(|| Error::Answer { rpc: RPC, what: "no snapshot".to_owned() })
    }

    /// DeleteSnapshot.
    pub async fn delete_snapshot(&self, snapshot_id: &str) -> Result<()> {
        let request = DeleteSnapshotRequest { snapshot_id: snapshot_id.to_owned(), ..Default::default() };
        self.send(request).await.map(drop).map_err(|status| Error::rpc("DeleteSnapshot", &status))
    }

    /// ListVolumes: one page of at most `max_entries` (the plugin's choice for 0).
    pub async fn list_volumes(&self, max_entries: i32, starting_token: &str) -> Result<Page> {
        let request = ListVolumesRequest { max_entries, starting_token: starting_token.to_owned() };
        let page = answer("ListVolumes", self.controller.clone().list_volumes(bounded(request)).await)?;
        let volumes = page.entries.into_iter().filter_map(|entry| entry.volume).collect();
        Ok(Page { volumes, next_token: page.next_token })
    }

    /// ListSnapshots: one page of at most `max_entries` (the plugin's choice for 0), and what asks for the next one.
    pub async fn list_snapshots(&self, max_entries: i32, starting_token: &str) -> Result<(Vec<Snapshot>, String)> {
        let starting_token = starting_token.to_owned();
        let request = ListSnapshotsRequest { max_entries, starting_token, ..ListSnapshotsRequest::default() };
        let page = answer("ListSnapshots", self.controller.clone().list_snapshots(bounded(request)).await)?;
        Ok((page.entries.into_iter().filter_map(|entry| entry.snapshot).collect(), page.next_token))
    }

    /// GetCapacity on this node, in bytes.
    pub async fn get_capacity(&self) -> Result<i64> {
        let request =
            GetCapacityRequest { accessible_topology: self.offers.topology.clone(), ..GetCapacityRequest::default() };
        let capacity = answer("GetCapacity", self.controller.clone().get_capacity(bounded(request)).await)?;
        Ok(capacity.available_capacity)
    }

    /// ControllerExpandVolume: the size that the volume has afterwards, and whether the node has to grow it too.
    pub async fn controller_expand_volume(
        &self,
        volume_id: &str,
        required_bytes: i64,
        capability: VolumeCapability,
    ) -> Result<(i64, bool)> {
        let request = ControllerExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
            volume_capability: Some(capability),
            ..ControllerExpandVolumeRequest::default()
        };
        let answered = self.controller.clone().controller_expand_volume(bounded(request)).await;
        let grown = answer("ControllerExpandVolume", answered)?;
        Ok((grown.capacity_bytes, grown.node_expansion_required))
    }
}

/// The first connection: tried again until `wait` is over, since a plugin may be about to start.
async fn reach(endpoint: &Endpoint, wait: Duration) -> Result<UnixStream> {
    const BETWEEN: Duration = Duration::from_millis(20);
    let start = Instant::now();
    loop {
        match UnixStream::connect(endpoint.path()).await {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() + BETWEEN >= wait => return Err(unreachable(endpoint, wait, error)),
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
}

fn unreachable(endpoint: &Endpoint, waited: Duration, reason: impl ToString) -> Error {
    Error::Connect { path: endpoint.path().to_owned(), waited, reason: reason.to_string() }
}
