//! A plugin that is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::bench::Options;
use crate::bench::names::Names;
use crate::bench::view::View;
use crate::client::{Endpoint, Error, Plugin, Result, VolumeRequest};

/// How long a socket is waited for: a plugin that is just starting.
const WAIT: Duration = Duration::from_secs(10);

/// One plugin, and everything that its workers share.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) endpoint: Endpoint,
    pub(crate) plugin: Plugin,
    pub(crate) pid: Option<u32>,
    pub(crate) view: View,
    pub(crate) options: Options,
    names: Names,
    folder: TempDir,
}

impl Side {
    pub(crate) async fn open(options: &Options, endpoint: &Endpoint, number: usize) -> Result<Self> {
        let plugin = Plugin::connect(endpoint, WAIT).await?;
        if !plugin.offers().creates() {
            let what = "no CREATE_DELETE_VOLUME: there is nothing to measure".to_owned();
            return Err(Error::Answer { rpc: "ControllerGetCapabilities", what });
        }
        // The process that is given is that of the first plugin.
        let pid = options.pid.filter(|_| number == 0).or(plugin.pid());
        Ok(Self {
            endpoint: endpoint.clone(),
            view: View::of(pid),
            pid,
            plugin,
            options: options.clone(),
            names: Names::new(number),
            folder: make_folder(&options.dir)?,
        })
    }

    pub(crate) fn request(&self, part: &str, number: usize) -> VolumeRequest {
        VolumeRequest {
            name: self.names.volume(part, number),
            required_bytes: self.options.size,
            access: self.options.access.clone(),
            parameters: self.options.parameters.clone(),
            snapshot_id: None,
        }
    }

    pub(crate) fn folder(&self, number: usize) -> PathBuf {
        self.folder.path().join(number.to_string())
    }
}

/// A plugin runs as another user, perhaps: it must reach the paths.
fn make_folder(dir: &Path) -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let local = |error| Error::local("cannot make a folder in", dir, error);
    fs::create_dir_all(dir).map_err(local)?;
    // Paths of an orchestrator are absolute.
    let dir = fs::canonicalize(dir).map_err(local)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("bench-").permissions(fs::Permissions::from_mode(0o755)).tempdir_in(dir).map_err(local)
}
