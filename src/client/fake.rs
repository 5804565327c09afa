//! A plugin in this process, whose protocol and whose faults a test chooses.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dunnage_csi_proto::csi::v1::controller_server::{Controller, ControllerServer};
use dunnage_csi_proto::csi::v1::identity_server::{Identity, IdentityServer};
use dunnage_csi_proto::csi::v1::node_server::{Node, NodeServer};
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::*;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::client::Endpoint;

use self::controller_service_capability::rpc::Type as ControllerRpc;
use self::node_service_capability::rpc::Type as NodeRpc;

/// What the plugin does. Volumes are published as plain files: no mount, so no root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protocol {
    pub(crate) stages: bool,
    pub(crate) attaches: bool,
    /// This call fails, always.
    pub(crate) fails: Option<&'static str>,
    /// The first create does its work and says that it did not.
    pub(crate) loses_first_answer: bool,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    calls: Vec<String>,
    serial: usize,
}

#[derive(Debug, Clone)]
struct Service {
    protocol: Protocol,
    state: Arc<Mutex<State>>,
}

/// The plugin, served until it is dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) folder: TempDir,
    pub(crate) endpoint: Endpoint,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl Fake {
    pub(crate) fn serve(protocol: Protocol) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::at(folder.path().join("csi.sock")).unwrap();
        let listener = UnixListener::bind(endpoint.path()).unwrap();
        let service = Service { protocol, state: Arc::default() };
        let state = Arc::clone(&service.state);
        let router = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(service.clone()))
            .add_service(ControllerServer::new(service.clone()))
            .add_service(NodeServer::new(service));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { folder, endpoint, state, server }
    }

    pub(crate) fn volumes(&self) -> usize {
        self.state.lock().unwrap().volumes.len()
    }

    /// The changing calls so far, with the contexts they carried.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    fn note(&self, rpc: &'static str, context: &HashMap<String, String>) -> Result<(), Status> {
        let attached = if context.contains_key("device") { " (attached)" } else { "" };
        self.state.lock().unwrap().calls.push(format!("{rpc}{attached}"));
        if self.protocol.fails == Some(rpc) { Err(Status::new(Code::Internal, "as the test wants it")) } else { Ok(()) }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(&self, _: Request<GetPluginInfoRequest>) -> Answer<GetPluginInfoResponse> {
        let name = "fake.example.com".to_owned();
        Ok(Response::new(GetPluginInfoResponse { name, vendor_version: "1".to_owned(), ..Default::default() }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        let service = plugin_capability::Service { r#type: PluginService::ControllerService.into() };
        let capability = PluginCapability { r#type: Some(plugin_capability::Type::Service(service)) };
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities: vec![capability] }))
    }
}

#[tonic::async_trait]
impl Controller for Service {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let mut rpcs = vec![ControllerRpc::CreateDeleteVolume, ControllerRpc::ListVolumes];
        rpcs.extend(self.protocol.attaches.then_some(ControllerRpc::PublishUnpublishVolume));
        let capability = |rpc: ControllerRpc| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(controller_service_capability::Rpc {
                r#type: rpc.into(),
            })),
        };
        let capabilities = rpcs.into_iter().map(capability).collect();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        self.note("CreateVolume", &HashMap::new())?;
        let request = request.into_inner();
        assert!(request.accessibility_requirements.is_some(), "the node's topology is asked for");
        let mut state = self.state.lock().unwrap();
        let serial = state.serial;
        state.serial += 1;
        let volume = state.volumes.entry(request.name.clone()).or_insert_with(|| Volume {
            volume_id: format!("id of {}", request.name),
            capacity_bytes: request.capacity_range.unwrap_or_default().required_bytes,
            ..Default::default()
        });
        if self.protocol.loses_first_answer && serial == 0 {
            return Err(Status::new(Code::DeadlineExceeded, "too slow"));
        }
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume.clone()) }))
    }

    async fn delete_volume(&self, request: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        self.note("DeleteVolume", &HashMap::new())?;
        let id = request.into_inner().volume_id;
        self.state.lock().unwrap().volumes.retain(|_, volume| volume.volume_id != id);
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn list_volumes(&self, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let request = request.into_inner();
        let skip: usize = request.starting_token.parse().unwrap_or(0);
        let take = usize::try_from(request.max_entries).unwrap();
        let state = self.state.lock().unwrap();
        let entries: Vec<_> = state.volumes.values().skip(skip).take(take).cloned().collect();
        let next = skip + entries.len();
        let next_token = if next < state.volumes.len() { next.to_string() } else { String::new() };
        let entry = |volume| list_volumes_response::Entry { volume: Some(volume), status: None };
        Ok(Response::new(ListVolumesResponse { entries: entries.into_iter().map(entry).collect(), next_token }))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        self.note("ControllerPublishVolume", &HashMap::new())?;
        assert_eq!(request.into_inner().node_id, "node");
        let publish_context = HashMap::from([("device".to_owned(), "7".to_owned())]);
        Ok(Response::new(ControllerPublishVolumeResponse { publish_context }))
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        self.note("ControllerUnpublishVolume", &HashMap::new())?;
        Ok(Response::new(ControllerUnpublishVolumeResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Service {
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let rpc = node_service_capability::Rpc { r#type: NodeRpc::StageUnstageVolume.into() };
        let capability = NodeServiceCapability { r#type: Some(node_service_capability::Type::Rpc(rpc)) };
        let capabilities = self.protocol.stages.then_some(capability).into_iter().collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let topology = Topology { segments: HashMap::from([("host".to_owned(), "node".to_owned())]) };
        let node_id = "node".to_owned();
        Ok(Response::new(NodeGetInfoResponse { node_id, accessible_topology: Some(topology), ..Default::default() }))
    }

    async fn node_stage_volume(&self, request: Request<NodeStageVolumeRequest>) -> Answer<NodeStageVolumeResponse> {
        let request = request.into_inner();
        self.note("NodeStageVolume", &request.publish_context)?;
        assert!(Path::new(&request.staging_target_path).is_dir(), "the orchestrator makes the staging path");
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(&self, _: Request<NodeUnstageVolumeRequest>) -> Answer<NodeUnstageVolumeResponse> {
        self.note("NodeUnstageVolume", &HashMap::new())?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.note("NodePublishVolume", &request.publish_context)?;
        assert_eq!(request.staging_target_path.is_empty(), !self.protocol.stages);
        fs::write(&request.target_path, "")?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        self.note("NodeUnpublishVolume", &HashMap::new())?;
        match fs::remove_file(request.into_inner().target_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(Response::new(NodeUnpublishVolumeResponse {})),
        }
    }
}
