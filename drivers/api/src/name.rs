//! Names in the configuration.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::Quoted;

/// The name of a backend: a DNS label (RFC 1123), 1 to 42 characters of `a-z`, `0-9` and `-`, so that the CSI name
/// made from it keeps to the 63 that CSI allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$"))]
pub struct BackendName(String);

/// The name of the node this process runs on: 1 to 253 characters, as Kubernetes allows for a Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$"))]
pub struct NodeName(String);

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

impl FromStr for BackendName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=42).contains(&text.len())
            && text.bytes().all(is_label_byte)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!(
            "{} is no name of a backend: use 1 to 42 of a-z, 0-9 and -, with a letter or digit at both ends",
            Quoted(text)
        )))
    }
}

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric());
        if fits {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!(
            "{} is no name of a node: use 1 to 253 letters, digits, '-', '.', '_', with a letter or digit at both ends",
            Quoted(text)
        )))
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
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text!(BackendName);
text!(NodeName);
