//! Where volumes can be used.

use std::collections::HashMap;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{Error, ErrorKind, Fingerprint, NodeName, Result};

use super::limits::missing;

/// The topology key of every plugin of ours. Its value is the node's [`Segment`].
pub const TOPOLOGY_KEY: &str = "dunnage.dev/node";

/// The longest value of a segment, in bytes (CSI Topology).
const LONGEST: usize = 63;
/// The length of the digest that stands for the rest of a longer name.
const DIGEST: usize = 26;

/// What stands for a node in topologies: its name where that has at most 63 characters, else its beginning with a
/// digest of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment(String);

impl Segment {
    /// The segment of a node.
    pub fn of(node: &NodeName) -> Self {
        let name = node.as_str();
        if name.len() <= LONGEST {
            return Self(name.into());
        }
        let digest = Fingerprint::of(&[("node".to_owned(), name.to_owned())].into());
        Self(format!("{}-{digest}", &name[..LONGEST - 1 - DIGEST]))
    }

    /// The topology that is this node alone.
    pub fn to_wire(&self) -> csi::Topology {
        csi::Topology { segments: HashMap::from([(TOPOLOGY_KEY.to_owned(), self.0.clone())]) }
    }

    /// Whether a topology includes this node: it names our key with our value and no other.
    pub fn is_in(&self, topology: &csi::Topology) -> bool {
        topology.segments.len() == 1 && topology.segments.get(TOPOLOGY_KEY) == Some(&self.0)
    }

    /// Whether a volume that only this node can use meets the requirement (CSI TopologyRequirement).
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`] where it does not: another node's plugin has to make the volume.
    /// [`ErrorKind::InvalidArgument`] for a requirement that names neither requisite nor preferred topologies.
    pub fn meets(&self, requirement: Option<&csi::TopologyRequirement>) -> Result<()> {
        let Some(requirement) = requirement else { return Ok(()) };
        if requirement.requisite.is_empty() && requirement.preferred.is_empty() {
            return Err(missing("accessibility_requirements.requisite"));
        }
        if requirement.requisite.is_empty() || requirement.requisite.iter().any(|topology| self.is_in(topology)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "the volume must be accessible from nodes that this store is not on: it is on {TOPOLOGY_KEY}={} alone",
                self.0
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str) -> Segment {
        Segment::of(&name.parse().unwrap())
    }

    #[test]
    fn a_long_node_name_becomes_a_valid_and_unlike_segment() {
        let (a, b) = ("n".repeat(252) + "a", "n".repeat(252) + "b");
        for name in [&a, &b] {
            let value = segment(name).0;
            assert!(value.len() <= 63 && value.ends_with(|c: char| c.is_ascii_alphanumeric()), "{value}");
        }
        assert_ne!(segment(&a), segment(&b));
        assert_eq!(segment("node-7.example.com").0, "node-7.example.com");
    }

    #[test]
    fn a_requirement_for_other_nodes_is_exhausted_and_not_wrong() {
        let (here, there) = (segment("here"), segment("there"));
        let requirement = |requisite: &[&Segment], preferred: &[&Segment]| csi::TopologyRequirement {
            requisite: requisite.iter().map(|segment| segment.to_wire()).collect(),
            preferred: preferred.iter().map(|segment| segment.to_wire()).collect(),
        };
        assert!(here.meets(None).is_ok());
        assert!(here.meets(Some(&requirement(&[&there, &here], &[&there]))).is_ok());
        assert!(here.meets(Some(&requirement(&[], &[&there]))).is_ok());
        let error = here.meets(Some(&requirement(&[&there], &[]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(here.meets(Some(&requirement(&[], &[]))).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
