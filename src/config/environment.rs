//! What the process adds to the file.

use std::path::{Path, PathBuf};

use dunnage_driver_api::NodeName;

use super::error::ConfigError;

/// What the process adds to the file.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `NODE_NAME`: the node where the file names none.
    pub node_name: Option<String>,
    /// `CSI_ENDPOINT`: the socket of the one plugin, with or without `unix://`.
    pub csi_endpoint: Option<String>,
    /// The host name: the node where nothing else says it.
    pub host_name: String,
}

impl Environment {
    /// That of this process. An empty variable is none.
    pub fn of_process() -> Self {
        let variable = |name| {
            std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        Self {
            node_name: variable("NODE_NAME"),
            csi_endpoint: variable("CSI_ENDPOINT"),
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }

    pub(super) fn node(&self) -> Result<NodeName, ConfigError> {
        let (source, name) = match &self.node_name {
            Some(name) => ("the environment variable NODE_NAME", name),
            None => ("the host name", &self.host_name),
        };
        name.parse()
            .map_err(|error| ConfigError::new(None, format!("{source} names this node: {error}; or set `node`")))
    }

    pub(super) fn socket(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(endpoint) = &self.csi_endpoint else { return Ok(None) };
        let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
        let path = Path::new(path);
        if path.is_absolute() && path.file_name().is_some() {
            return Ok(Some(path.to_owned()));
        }
        Err(ConfigError::new(
            None,
            format!(
                "the environment variable CSI_ENDPOINT is {endpoint:?}: it must be the absolute path of a unix socket, \
                 as unix:///csi/csi.sock"
            ),
        ))
    }
}
