//! What a node is called towards the orchestrator.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest;
use crate::error::{Error, Result};
use crate::name::NodeName;
use crate::text::Quoted;

/// The id of a node (CSI node_id): its name, a dot, and a digest of that, 192 bytes at most. A name that is too long is cut,
/// with a digest of its whole in the place of the rest.
///
/// A controller knows of no node until a volume is attached to one, and asks nobody. By the digest it knows an id that a
/// node service of ours made from one that nobody did: a node of that one does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// The greatest length of its text in bytes.
    pub const MAX_LENGTH: usize = 192;

    const DIGEST: usize = 13;
    const NAME: usize = Self::MAX_LENGTH - 1 - Self::DIGEST;

    /// That of the node of this name.
    pub fn of(node: &NodeName) -> Self {
        let name = node.as_str();
        let kept = match name.get(..Self::NAME - 1 - Self::DIGEST) {
            Some(start) if name.len() > Self::NAME => format!("{start}~{}", short_digest(name)),
            _ => name.to_owned(),
        };
        Self(format!("{kept}.{}", short_digest(&kept)))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether this is what is kept of the name of a node: drivers make names and paths of it, as of a name.
fn is_kept_name(kept: &str) -> bool {
    match kept.split_once('~') {
        // What it was cut at may be no end of a name.
        Some((start, digest)) => {
            let is_digest = digest.len() == NodeId::DIGEST && digest.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_digest && format!("{start}0").parse::<NodeName>().is_ok()
        }
        None => kept.parse::<NodeName>().is_ok(),
    }
}

fn short_digest(text: &str) -> String {
    let mut digest = digest::of_name(&format!("node {text}"));
    digest.truncate(NodeId::DIGEST);
    digest
}

impl FromStr for NodeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.rsplit_once('.') {
            Some((kept, digest))
                if text.len() <= Self::MAX_LENGTH && is_kept_name(kept) && short_digest(kept) == digest =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(Error::not_found(format!(
                "there is no node {}: the id of a node is what its NodeGetInfo answers",
                Quoted(text)
            ))),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn id(name: &str) -> NodeId {
        NodeId::of(&name.parse().unwrap())
    }

    #[test]
    fn the_text_is_frozen() {
        assert_eq!(id("node-7").as_str(), "node-7.pnfu7axz64f4r");
    }

    #[test]
    fn what_a_node_says_of_itself_is_known_and_all_else_is_not_found() {
        let (one, other) = ("n".repeat(253), format!("{}m", "n".repeat(252)));
        for name in ["a", "node-7", "node-7.example.com", &one, &other] {
            let id = id(name);
            assert!(id.as_str().len() <= NodeId::MAX_LENGTH, "{id}");
            assert_eq!(id.as_str().parse::<NodeId>().unwrap(), id);
        }
        assert_ne!(id(&one), id(&other));
        for text in ["", "node-7", "node-7.", "node-8.aaaaaaaaaaaaa", "conformance-no-such-node", ".", "a.b"] {
            assert_eq!(text.parse::<NodeId>().unwrap_err().kind(), ErrorKind::NotFound, "{text}");
        }
    }

    #[test]
    fn a_digest_alone_makes_no_name_of_a_node() {
        let digest = "a".repeat(NodeId::DIGEST);
        for kept in [
            "..",
            "a/b",
            "/a",
            "a,b",
            "a\nb",
            "",
            "a b",
            "~",
            "a~b",
            "é",
            &format!("a/~{digest}"),
            &format!("~{digest}~"),
        ] {
            let text = format!("{kept}.{}", short_digest(kept));
            assert_eq!(text.parse::<NodeId>().unwrap_err().kind(), ErrorKind::NotFound, "{text:?}");
        }
        let ends_in_a_dot = id(&format!("{}.{}", "n".repeat(163), "m".repeat(80)));
        assert!(ends_in_a_dot.as_str().contains(".~"), "{ends_in_a_dot}");
        ends_in_a_dot.as_str().parse::<NodeId>().unwrap();
    }
}
