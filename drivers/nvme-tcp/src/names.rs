//! The names of hosts, subsystems and namespaces: all made from what the orchestrator passes.

use std::fmt;
use std::str::FromStr;

use dunnage_driver_api::{Error, ExportId, NodeId, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What every NQN of ours begins with.
const PREFIX: &str = "nqn.2026-01.dev.dunnage:";
/// The most bytes of an NQN.
const LONGEST: usize = 223;

/// An NVMe qualified name.
pub(crate) fn is_nqn(text: &str) -> bool {
    text.starts_with("nqn.")
        && text.len() <= LONGEST
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// The subsystem of an export.
pub(crate) fn subsystem(id: &ExportId) -> String {
    format!("{PREFIX}{id}")
}

/// The export that a subsystem is, if it is one.
pub(crate) fn export(nqn: &str) -> Option<ExportId> {
    nqn.strip_prefix(PREFIX)?.parse().ok()
}

/// The host that a node is.
pub(crate) fn host(node: &NodeId) -> String {
    format!("{PREFIX}node:{node}")
}

/// The identifier that goes with the name of a host, for a kernel wants both to belong to each other.
pub(crate) fn host_id(node: &NodeId) -> Uuid {
    Uuid::of(&host(node))
}

/// The namespace of an export. Of an attachment and not of a volume: a kernel refuses a second namespace of the same UUID,
/// and the one of an attachment that was ended may still be there.
pub(crate) fn namespace(id: &ExportId) -> Uuid {
    Uuid::of(&subsystem(id))
}

/// The serial number of a subsystem: it may have 20 characters.
pub(crate) fn serial(id: &ExportId) -> String {
    namespace(id).hex()[..20].to_owned()
}

/// 128 bits that tell a namespace, or a host, from all others: a UUID, or an NGUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Uuid([u8; 16]);

impl Uuid {
    /// The one made from a name (RFC 9562, version 8).
    fn of(name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Its 32 digits.
    pub(crate) fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.hex();
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl TryFrom<String> for Uuid {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

impl FromStr for Uuid {
    type Err = Error;

    /// With hyphens or without.
    fn from_str(text: &str) -> Result<Self> {
        let hex: String = text.chars().filter(|character| *character != '-').collect();
        let number = u128::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 32 && !hex.starts_with('+'));
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| {
            Error::invalid(format!("{text:?} is no UUID: want 32 hexadecimal digits, with hyphens or without"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ExportId {
        "mzxw6ytboimzxw6ytboimzxw6y.pvc-1.2.a4dqobyha4dqobyha4dqobyha4.aaaaaaaaaaaaa".parse().unwrap()
    }

    #[test]
    fn the_names_are_frozen() {
        let node = NodeId::of(&"node-7".parse().unwrap());
        assert_eq!(subsystem(&id()), format!("nqn.2026-01.dev.dunnage:{}", id()));
        assert_eq!(export(&subsystem(&id())), Some(id()));
        assert_eq!(host(&node), format!("nqn.2026-01.dev.dunnage:node:{node}"));
        assert_eq!(export(&host(&node)), None);
        assert_eq!(namespace(&id()).to_string(), "d6e3e93f-9c39-87b7-b37f-d40fa1421de1");
        assert_eq!(host_id(&node).to_string(), "d99ead2e-58d2-82aa-bd84-50acb29a5d94");
        assert_eq!(serial(&id()).len(), 20);
    }

    #[test]
    fn the_longest_names_are_nqns() {
        let long = "n".repeat(253);
        assert!(is_nqn(&host(&NodeId::of(&long.parse().unwrap()))));
        assert!(PREFIX.len() + 106 + 1 + 26 <= LONGEST);
        for text in ["", "nqn.", &format!("nqn.{long}"), "iqn.2026-01.dev.dunnage:x", "nqn.a,b", "nqn.a b", "nqn.a\n"] {
            assert_eq!(is_nqn(text), text == "nqn.", "{text:?}");
        }
    }

    #[test]
    fn a_uuid_is_read_in_both_forms() {
        let uuid = namespace(&id());
        for text in [uuid.to_string(), uuid.hex(), uuid.hex().to_uppercase()] {
            assert_eq!(text.parse::<Uuid>().unwrap(), uuid);
        }
        for text in ["", "x", "00000000-0000-0000-0000-00000000000", "+0000000000000000000000000000000"] {
            text.parse::<Uuid>().unwrap_err();
        }
    }
}
