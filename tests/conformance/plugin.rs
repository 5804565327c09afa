//! A small plugin that is right, and one rule of which can be broken: the subject of the tests of the kit.
//!
//! Volumes are folders and files below a root; snapshots and clones are copies. All state is one file, written whole
//! before each answer, so that the plugin may be killed.

mod controller;
mod copies;
mod disk;
mod groups;
mod health;
mod identity;
mod metadata;
mod node;
mod state;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use dunnage_csi_proto::csi::v1::controller_server::ControllerServer;
use dunnage_csi_proto::csi::v1::group_controller_server::GroupControllerServer;
use dunnage_csi_proto::csi::v1::identity_server::IdentityServer;
use dunnage_csi_proto::csi::v1::node_server::NodeServer;
use dunnage_csi_proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;
use dunnage_csi_proto::csi::v1::volume_capability::AccessType;
use dunnage_csi_proto::csi::v1::{Topology, VolumeCapability};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Response, Status};

use crate::mutant::Mutant;
use state::State;

pub(crate) const NODE: &str = "node-1";

/// The plugin.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    root: PathBuf,
    mutant: Option<Mutant>,
    state: Arc<Mutex<State>>,
    /// The RPCs that are in the middle of their work.
    busy: Arc<Mutex<HashSet<&'static str>>>,
}

type Answer<T> = Result<Response<T>, Status>;

fn ok<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}

impl Plugin {
    pub(crate) fn new(root: &Path, mutant: Option<Mutant>) -> Self {
        for folder in ["volumes", "snapshots"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mut state = State::read(root);
        match mutant {
            Some(Mutant::ForgetsOnRestart) => state = State::default(),
            Some(Mutant::ForgetsNamesOnRestart) => state.volumes.values_mut().for_each(|own| own.name.clear()),
            Some(Mutant::ForgetsSnapshotsOnRestart) => state.snapshots.clear(),
            Some(Mutant::ForgetsTargetsOnRestart) => state.published.clear(),
            _ => {}
        }
        Self { root: root.to_owned(), mutant, state: Arc::new(Mutex::new(state)), busy: Arc::default() }
    }

    /// Serves until the future is dropped.
    pub(crate) async fn serve(self, socket: &Path) {
        // What an earlier process left.
        let _nothing_there = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let router = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self.clone()))
            .add_service(GroupControllerServer::new(self.clone()))
            .add_service(SnapshotMetadataServer::new(self.clone()))
            .add_service(NodeServer::new(self));
        router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn save(&self, state: &State) {
        state.write(&self.root);
    }

    /// The middle of the work of an RPC, for mutants that are met or left there.
    async fn middle(&self, rpc: &'static str) -> Result<(), Status> {
        const LONG: std::time::Duration = std::time::Duration::from_millis(5);
        if self.is(Mutant::HalfDoneWithoutClient) {
            if !self.busy.lock().unwrap().insert(rpc) {
                return Err(Status::internal("an earlier call has left it half done"));
            }
            // Dropped here where the client goes.
            tokio::time::sleep(LONG).await;
            self.busy.lock().unwrap().remove(rpc);
        }
        if self.is(Mutant::BusyIsInternal) {
            if !self.busy.lock().unwrap().insert(rpc) {
                return Err(Status::internal("another call has it"));
            }
            tokio::time::sleep(LONG).await;
            self.busy.lock().unwrap().remove(rpc);
        }
        Ok(())
    }

    fn volume_path(&self, id: &str) -> PathBuf {
        self.root.join("volumes").join(id)
    }

    fn snapshot_path(&self, id: &str) -> PathBuf {
        self.root.join("snapshots").join(id)
    }

    /// INVALID_ARGUMENT where a REQUIRED field is missing.
    fn required(&self, field: &str, value: &str, forgets: Mutant) -> Result<(), Status> {
        if value.is_empty() && !self.is(forgets) {
            return Err(Status::invalid_argument(format!("{field} is required")));
        }
        Ok(())
    }
}

fn here() -> Topology {
    Topology { segments: HashMap::from([("right.example.com/node".to_owned(), NODE.to_owned())]) }
}

fn now() -> (i64, i32) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (since.as_secs().try_into().unwrap(), since.subsec_nanos().try_into().unwrap())
}

/// Whether a capability is for a block volume.
fn is_block(capability: &VolumeCapability) -> Result<bool, Status> {
    if capability.access_mode.is_none_or(|own| own.mode == 0) {
        return Err(Status::invalid_argument("access_mode is required"));
    }
    match &capability.access_type {
        Some(AccessType::Block(_)) => Ok(true),
        Some(AccessType::Mount(_)) => Ok(false),
        None => Err(Status::invalid_argument("access_type is required")),
    }
}

/// A page of a list: the entries, and the token of the next.
fn page<T>(
    all: Vec<T>,
    max_entries: i32,
    starting_token: &str,
    checks: (bool, bool),
) -> Result<(Vec<T>, String), Status> {
    let (checks_token, checks_number) = checks;
    if max_entries < 0 && checks_number {
        return Err(Status::invalid_argument("max_entries is negative"));
    }
    let start: usize = match starting_token {
        "" => 0,
        token => match token.parse() {
            Ok(start) => start,
            Err(_) if !checks_token => 0,
            Err(_) => return Err(Status::aborted(format!("{token:?} is no token of ours"))),
        },
    };
    let total = all.len();
    let take = match usize::try_from(max_entries) {
        Ok(0) | Err(_) => total,
        Ok(most) => most,
    };
    let entries: Vec<T> = all.into_iter().skip(start).take(take).collect();
    let next = start + entries.len();
    Ok((entries, if next < total { next.to_string() } else { String::new() }))
}
