//! The configuration file key by key. The comments here are the documentation that `dunnage schema` prints.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use dunnage_driver_api::{BackendName, Bytes, NodeName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csi_name::CsiName;
use super::values::{AbsolutePath, BlockSize, Listen};
use crate::telemetry::LogFormat;

/// The configuration of Dunnage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of keys, as `backends:`")]
pub(super) struct File {
    /// The folder of what this node must remember across restarts. One running host locks it.
    #[serde(default = "state")]
    pub(super) state: AbsolutePath,

    /// The folder of the sockets: `<sockets>/<csi name>/csi.sock`. Below the kubelet's root, where that is not the
    /// usual one too.
    #[serde(default = "sockets")]
    pub(super) sockets: AbsolutePath,

    /// The name of this node. Without it the environment variable NODE_NAME, then the host name.
    pub(super) node: Option<NodeName>,

    /// Which half of CSI this process serves.
    #[serde(default)]
    pub(super) mode: Mode,

    /// Metrics and health.
    #[serde(default)]
    pub(super) telemetry: Telemetry,

    /// The form of the log.
    #[serde(default)]
    pub(super) log: LogFormat,

    /// How many seconds running operations have to end once the process is told to stop.
    #[serde(default = "drain_seconds")]
    pub(super) drain_seconds: u32,

    /// The storage to serve. Each backend is a plugin of its own unless `plugins` names it.
    #[schemars(with = "Vec<BackendKeys>", length(min = 1))]
    pub(super) backends: Vec<serde_json::Map<String, serde_json::Value>>,

    /// Plugins that serve several backends behind one CSI name; these backends have no socket of their own.
    #[serde(default)]
    pub(super) plugins: Vec<Plugin>,
}

fn state() -> AbsolutePath {
    AbsolutePath::of("/var/lib/dunnage")
}

fn sockets() -> AbsolutePath {
    AbsolutePath::of("/var/lib/kubelet/plugins")
}

fn drain_seconds() -> u32 {
    20
}

/// Which half of CSI a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Both.
    #[default]
    All,
    /// Creating, deleting, growing: what needs the store.
    Controller,
    /// Staging and publishing: what needs this node.
    Node,
}

/// Metrics and health.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map with the key `listen`")]
pub(super) struct Telemetry {
    /// The address of /metrics, /livez, /readyz and /healthz as IP:PORT, or `off`.
    pub(super) listen: Listen,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { listen: Listen(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9095)))) }
    }
}

/// The keys that every backend has beside those of its driver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendKeys {
    /// The name of the backend: 1 to 42 characters of a-z, 0-9 and -.
    pub(super) name: BackendName,

    /// The kind of storage.
    pub(super) driver: String,

    /// The CSI name of the backend's plugin. Without it `<name>.csi.dunnage.dev`.
    pub(super) csi_name: Option<CsiName>,

    /// The nodes that have the store. Without it all of them. Of a store that every node reaches (`nfs`) the nodes that may
    /// make and remove volumes: one process does at a time, and every node uses them.
    #[schemars(length(min = 1))]
    pub(super) nodes: Option<Vec<NodeName>>,

    /// How many calls the backend works on at once.
    #[serde(default)]
    pub(super) workers: Workers,

    /// Allows volumes that a pod's author defines inside the pod (CSI ephemeral inline volumes). Without it there are
    /// none.
    pub(super) ephemeral: Option<Ephemeral>,

    /// The size of the blocks in which the changed blocks of snapshots are told, a power of 2 (CSI FIXED_LENGTH). Without
    /// it they are told as ranges of any size (VARIABLE_LENGTH).
    pub(super) changed_block_size: Option<BlockSize>,

    /// Marks the place as ours at start where it is empty, as the command `init` does.
    #[serde(default)]
    pub(super) init: bool,
}

/// How many calls a backend works on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map with the keys `threads` and `total`")]
pub struct Workers {
    /// Threads that work at once.
    pub threads: NonZeroU16,

    /// Threads in all, with those that a dead store holds in the kernel: beyond it calls are refused at once.
    pub total: NonZeroU16,
}

impl Default for Workers {
    fn default() -> Self {
        const THREADS: NonZeroU16 = NonZeroU16::new(16).unwrap();
        const TOTAL: NonZeroU16 = NonZeroU16::new(64).unwrap();
        Self { threads: THREADS, total: TOTAL }
    }
}

/// What the author of a pod may ask of an ephemeral inline volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with the keys `max_size` and `parameters`")]
pub struct Ephemeral {
    /// The largest such volume.
    pub max_size: Bytes,

    /// The class parameters that a pod may set.
    #[serde(default)]
    pub parameters: Vec<String>,
}

/// Several backends behind one CSI name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with the keys `csi_name` and `backends`")]
pub(super) struct Plugin {
    /// The CSI name.
    pub(super) csi_name: CsiName,

    /// The names of the backends.
    #[schemars(length(min = 1))]
    pub(super) backends: Vec<BackendName>,
}
