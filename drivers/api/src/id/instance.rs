//! The two random parts of an id: whose it is, and which of those that bore the name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::base32;
use crate::error::{Error, Result};
use crate::text::Quoted;

/// One concrete store: this root, that volume group. 128 random bits, written into the store's marker by `init` and
/// never changed; shown as 26 characters of lower-case base 32.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Box<str>);

/// Which of the volumes that bore a key: stored before the first answer that names the volume, so that a late call
/// for a deleted volume never meets its successor. 1 to 26 characters of lower-case base 32: 64 random bits of ours,
/// or the storage's own UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Generation(Box<str>);

impl InstanceId {
    /// The length of its text in bytes.
    pub const LENGTH: usize = 26;

    /// A new identity, for the marker of an empty store.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn random() -> Result<Self> {
        base32::random::<16>()
            .map(|text| Self(text.into()))
            .map_err(|error| Error::io("cannot read random bytes for an instance", error))
    }
}

impl Generation {
    /// The greatest length of its text in bytes.
    pub const MAX_LENGTH: usize = 26;

    /// A new generation, for a volume that is being made.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn random() -> Result<Self> {
        base32::random::<8>()
            .map(|text| Self(text.into()))
            .map_err(|error| Error::io("cannot read random bytes for a generation", error))
    }

    /// The storage's own 128-bit UUID as a generation.
    pub fn from_uuid(uuid: [u8; 16]) -> Self {
        Self(base32::encode(&uuid).into())
    }

    /// The number that a [`random`](Self::random) one is the text of: a fifth of the memory.
    pub(crate) fn to_number(&self) -> Option<u64> {
        base32::decode(&self.0).map(u64::from_be_bytes)
    }

    /// The one of this number.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(base32::encode(&number.to_be_bytes()).into())
    }
}

impl FromStr for InstanceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() == Self::LENGTH && base32::is_base32(text) {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!("{} is no instance: want {} characters of a-z and 2-7", Quoted(text), Self::LENGTH)))
    }
}

impl FromStr for Generation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if (1..=Self::MAX_LENGTH).contains(&text.len()) && base32::is_base32(text) {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!("{} is no generation: want 1 to 26 characters of a-z and 2-7", Quoted(text))))
    }
}

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }
    };
}

text!(InstanceId);
text!(Generation);
