//! The configuration file: what it holds, its defaults, and where in it an error is.
//!
//! The file is read into a tree that knows its lines, checked key by key as the types of `file` and of the drivers, and
//! then resolved as a whole into a [`Config`] that holds nothing wrong.

mod csi_name;
mod environment;
mod error;
mod file;
mod resolve;
mod schema;
mod tree;
mod values;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{BackendName, Configured, DriverEntry, NodeName, Reach};

pub use csi_name::{CsiName, DOMAIN, NoCsiName};
pub use environment::Environment;
pub use error::{ConfigError, Place};
pub use file::{Ephemeral, Mode, Workers};
pub use schema::schema;
pub use values::BlockSize;

use crate::telemetry::LogFormat;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What a process is to serve, and how.
#[derive(Clone)]
pub struct Config {
    /// The folder of what this node must remember.
    pub state: PathBuf,
    /// The folder of the plugins' sockets.
    pub sockets: PathBuf,
    /// This node.
    pub node: NodeName,
    /// Which half of CSI is served.
    pub mode: Mode,
    /// The address of metrics and health, `None` where they are off.
    pub telemetry: Option<SocketAddr>,
    /// The form of the log.
    pub log: LogFormat,
    /// How long running operations have to end once the process is told to stop.
    pub drain: Duration,
    /// The backends in the order of the file, at least one; names are unique.
    pub backends: Vec<BackendConfig>,
    /// The plugins: those of one backend first, then those that are shared. Each backend is behind exactly one; names
    /// and sockets are unique.
    pub plugins: Vec<PluginConfig>,
}

/// A driver with its configuration.
#[derive(Clone)]
pub struct BackendConfig {
    /// Its name.
    pub name: BackendName,
    /// The name of its driver.
    pub driver: &'static str,
    /// The name of the driver of its `store`, where it carries one.
    pub store: Option<&'static str>,
    /// From where its volumes can be used.
    pub reach: Reach,
    /// What the driver made of its own keys.
    pub configured: Arc<dyn Configured>,
    /// The nodes that have the store; `None` means all.
    pub nodes: Option<Vec<NodeName>>,
    /// What a pod's author may ask of an ephemeral inline volume; `None` means that there are none.
    pub ephemeral: Option<Ephemeral>,
    /// The size of the blocks that changed blocks are told in; `None` for ranges of any size.
    pub changed_block_size: Option<BlockSize>,
    /// How many calls it works on at once.
    pub workers: Workers,
    /// Whether an empty place is marked as ours at start.
    pub init: bool,
}

impl BackendConfig {
    /// Whether this node has the store.
    pub fn has_store(&self, node: &NodeName) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Whether a process that runs `mode` on this node has anything of it: the store, or, of one that every node reaches,
    /// the node half.
    pub fn is_on(&self, node: &NodeName, mode: Mode) -> bool {
        self.has_store(node) || (self.reach == Reach::Everywhere && mode != Mode::Controller)
    }
}

/// One CSI identity: a name, a socket, and the backends behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// Its CSI name.
    pub csi_name: CsiName,
    /// Its socket.
    pub socket: PathBuf,
    /// Its backends, as indices of [`Config::backends`]; at least one.
    pub backends: Vec<usize>,
    /// Whether `plugins` named it, so that CreateVolume needs the parameter `backend`.
    pub shared: bool,
}

impl Config {
    /// Reads a file, for this process.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong: with the file and the line.
    pub fn load(file: &Path, drivers: &[DriverEntry]) -> Result<Self, ConfigError> {
        let read = || {
            let mut text = String::new();
            let length = std::fs::File::open(file)
                .and_then(|open| open.take(MAX_FILE + 1).read_to_string(&mut text))
                .map_err(|error| ConfigError::unreadable(&error))?;
            if length as u64 > MAX_FILE {
                return Err(ConfigError::new(None, format!("it is larger than {MAX_FILE} bytes")));
            }
            Self::parse(&text, drivers, &Environment::of_process())
        };
        read().map_err(|error| error.of_file(file))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Where it is wrong: with the line.
    pub fn parse(text: &str, drivers: &[DriverEntry], environment: &Environment) -> Result<Self, ConfigError> {
        resolve::resolve(&tree::Document::parse(text)?, drivers, environment)
    }

    /// The file that a running host holds locked (flock), so that no two share a state folder.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("lock")
    }
}
