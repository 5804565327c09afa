//! What is known of a plugin beside what it advertises.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use dunnage_driver_api::Bytes;
use serde::{Deserialize, Serialize};

/// How volumes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// As file systems.
    Mount,
    /// As raw block devices.
    Block,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mount => "mount",
            Self::Block => "block",
        })
    }
}

/// Secrets of each RPC. `Debug` shows none.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretsOfCalls(HashMap<String, HashMap<String, String>>);

impl SecretsOfCalls {
    pub(super) fn of(&self, rpc: &str) -> Option<&HashMap<String, String>> {
        self.0.get(rpc)
    }
}

impl fmt::Debug for SecretsOfCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<of {} calls>", self.0.len())
    }
}

type Map = HashMap<String, String>;

/// What the kit is told with `--params`. Everything has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The size of volumes.
    pub size: Bytes,
    /// The size that they grow to; twice `size` where it is not given.
    pub larger_size: Option<Bytes>,
    /// How volumes are used; found out by asking for both where it is empty.
    pub access: Vec<Kind>,
    /// The file system of volumes, the plugin's choice where it is empty.
    pub fs_type: String,
    /// Mount options that the plugin must apply: each is looked for in the table of mounts.
    pub mount_flags: Vec<String>,
    /// The parameters of the class.
    pub parameters: Map,
    /// Parameters of another class, with which a volume of the first is not compatible.
    pub other_parameters: Map,
    /// Sets of parameters that a volume can be changed to, one after the other.
    pub mutable_parameters: Vec<Map>,
    /// The parameters of snapshots.
    pub snapshot_parameters: Map,
    /// The parameters of group snapshots.
    pub group_snapshot_parameters: Map,
    /// The secrets of each RPC, by its name.
    pub secrets: SecretsOfCalls,
    /// Where volumes are asked for; where the node says that it is, if this is empty.
    pub topology: Map,
    /// Where staging and target paths are made: a folder that the plugin sees too.
    pub folder: PathBuf,
    /// How many volumes and snapshots are listed in pages.
    pub many: usize,
    /// How many times the plugin is killed within calls.
    pub kills: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            size: Bytes::new(64 << 20),
            larger_size: None,
            access: Vec::new(),
            fs_type: String::new(),
            mount_flags: Vec::new(),
            parameters: Map::new(),
            other_parameters: Map::new(),
            mutable_parameters: Vec::new(),
            snapshot_parameters: Map::new(),
            group_snapshot_parameters: Map::new(),
            secrets: SecretsOfCalls::default(),
            topology: Map::new(),
            folder: std::env::temp_dir(),
            many: 5,
            kills: 20,
        }
    }
}

/// Why a file of parameters cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadParams {
    /// It cannot be read.
    #[error("cannot read the parameters {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// It is no YAML, or has a key that is not known.
    #[error("the parameters are wrong: {0}")]
    Parse(String),
}

impl Params {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// Where it cannot be read, is no YAML, or has a key that is not known.
    pub fn read(path: &Path) -> Result<Self, BadParams> {
        let text = std::fs::read_to_string(path).map_err(|reason| BadParams::Read { path: path.into(), reason })?;
        Self::parse(&text)
    }

    /// Reads YAML.
    ///
    /// # Errors
    /// Where it is no YAML, or has a key that is not known.
    pub fn parse(text: &str) -> Result<Self, BadParams> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // A snippet of the file could show a secret.
        let params: Self =
            serde_saphyr::from_str(text).map_err(|error| BadParams::Parse(error.without_snippet().to_string()))?;
        match params.folder.is_absolute() {
            true => Ok(params),
            false => Err(BadParams::Parse(format!("folder: {} is no absolute path", params.folder.display()))),
        }
    }

    pub(super) fn size(&self) -> i64 {
        self.size.to_wire()
    }

    pub(super) fn larger(&self) -> i64 {
        self.larger_size.map_or(self.size().saturating_mul(2), |size| size.to_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults_and_an_unknown_key_is_refused() {
        assert_eq!(Params::parse("").unwrap().size(), 64 << 20);
        let error = Params::parse("sizes: 1Gi").unwrap_err().to_string();
        assert!(error.contains("sizes"), "{error}");
    }

    #[test]
    fn every_key_of_the_example_in_the_documentation_is_one() {
        let page = include_str!("../../docs/conformance.md");
        let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let params = Params::parse(example).unwrap();
        assert!(params.secrets.of("CreateVolume").is_some() && !params.mutable_parameters.is_empty());
        assert!(!format!("{params:?}").contains("hunter2"));
    }
}
