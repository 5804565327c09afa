//! Single values of the file.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use dunnage_driver_api::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^/"))]
pub(super) struct AbsolutePath(PathBuf);

impl AbsolutePath {
    pub(super) fn of(path: &'static str) -> Self {
        Self(PathBuf::from(path))
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.0
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = Path::new(&text);
        let plain = !path.components().any(|part| part == Component::ParentDir) && !text.contains('\0');
        if path.is_absolute() && plain {
            return Ok(Self(path.components().collect()));
        }
        Err(format!("{text:?} is no absolute path: begin it with / and leave out .."))
    }
}

/// An address to listen on, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(super) struct Listen(pub(super) Option<SocketAddr>);

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| format!("{text:?} is no address: write IP:PORT, as 127.0.0.1:9095 or \"[::1]:9095\", or off"))
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.0.map_or_else(|| "off".into(), |address| address.to_string())
    }
}

/// A size of blocks: a power of 2, from 512 bytes to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Bytes")]
#[schemars(with = "Bytes")]
pub struct BlockSize(Bytes);

impl BlockSize {
    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<Bytes> for BlockSize {
    type Error = String;

    fn try_from(bytes: Bytes) -> Result<Self, String> {
        if bytes.get().is_power_of_two() && (512..=1 << 30).contains(&bytes.get()) {
            return Ok(Self(bytes));
        }
        Err(format!("{bytes} is no size of blocks: write a power of 2 from 512 to 1GiB, as 64KiB"))
    }
}
