//! Where volumes can be used.

use std::collections::{BTreeMap, HashMap, HashSet};

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{Error, ErrorKind, Fingerprint, NodeName, Result};

use super::limits::{is_plain, missing, short};

/// The topology key of every plugin of ours. Its value is the node's [`Segment`].
pub const TOPOLOGY_KEY: &str = "dunnage.dev/node";

/// The longest value of a segment, and the longest part of a key, in bytes (CSI Topology).
const LONGEST: usize = 63;
/// The length of the digest that stands for the rest of a longer name.
const DIGEST: usize = 26;

/// A checked Topology: a value for each of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topology(BTreeMap<String, String>);

impl Topology {
    /// A topology from the wire.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a key or a value that CSI does not allow, and for keys that differ in case
    /// alone.
    pub fn from_wire(wire: csi::Topology) -> Result<Self> {
        let mut keys = HashSet::new();
        for (key, value) in &wire.segments {
            short("a topology key", key)?;
            short("a topology value", value)?;
            let (prefix, name) =
                key.split_once('/').map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
            if !is_segment(name) || !prefix.is_none_or(is_domain) {
                return Err(Error::invalid(format!(
                    "topology key {key:?} is not [PREFIX/]NAME: a name has 1 to 63 letters, digits, '-', '_', '.', with \
                     a letter or digit at both ends; a prefix is a domain in lower case of at most 63"
                )));
            }
            if !is_segment(value) {
                return Err(Error::invalid(format!(
                    "topology value {value:?} of {key} is not 1 to 63 letters, digits, '-', '_', '.', with a letter or \
                     digit at both ends"
                )));
            }
            if !keys.insert(key.to_ascii_lowercase()) {
                return Err(Error::invalid(format!("topology key {key:?} comes twice, in upper and lower case")));
            }
        }
        Ok(Self(wire.segments.into_iter().collect()))
    }
}

fn is_segment(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().copied().all(is_plain)
}

fn is_domain(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ends(label.as_bytes().first()) && ends(label.as_bytes().last()) && label.bytes().all(inner)
    };
    text.len() <= LONGEST && text.split('.').all(is_label)
}

/// A checked TopologyRequirement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopologyRequirement {
    requisite: Vec<Topology>,
    preferred: Vec<Topology>,
}

impl TopologyRequirement {
    /// A requirement from the wire.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where it names neither requisite nor preferred topologies, and as
    /// [`Topology::from_wire`].
    pub fn from_wire(wire: csi::TopologyRequirement) -> Result<Self> {
        let all = |list: Vec<csi::Topology>| list.into_iter().map(Topology::from_wire).collect::<Result<Vec<_>>>();
        if wire.requisite.is_empty() && wire.preferred.is_empty() {
            return Err(missing("accessibility_requirements.requisite"));
        }
        Ok(Self { requisite: all(wire.requisite)?, preferred: all(wire.preferred)? })
    }
}

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
    pub fn is_in(&self, Topology(segments): &Topology) -> bool {
        segments.len() == 1 && segments.get(TOPOLOGY_KEY) == Some(&self.0)
    }

    /// Whether a volume that only this node can use meets the requirement (CSI TopologyRequirement).
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`] where it does not: another node's plugin has to make the volume.
    pub fn meets(&self, requirement: Option<&TopologyRequirement>) -> Result<()> {
        let Some(requirement) = requirement else { return Ok(()) };
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
        let requirement = |requisite: &[&Segment], preferred: &[&Segment]| {
            TopologyRequirement::from_wire(csi::TopologyRequirement {
                requisite: requisite.iter().map(|segment| segment.to_wire()).collect(),
                preferred: preferred.iter().map(|segment| segment.to_wire()).collect(),
            })
            .unwrap()
        };
        assert!(here.meets(None).is_ok());
        assert!(here.meets(Some(&requirement(&[&there, &here], &[&there]))).is_ok());
        assert!(here.meets(Some(&requirement(&[], &[&there]))).is_ok());
        let error = here.meets(Some(&requirement(&[&there], &[]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        let nothing = TopologyRequirement::from_wire(csi::TopologyRequirement::default());
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn keys_and_values_follow_the_rules_of_the_spec() {
        let topology = |segments: &[(&str, &str)]| {
            let segments = segments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Topology::from_wire(csi::Topology { segments })
        };
        let (longest, longer) = ("x".repeat(63), "x".repeat(64));
        for (key, value) in [
            ("zone", "z-1"),
            (TOPOLOGY_KEY, "node-7.example.com"),
            ("topology.kubernetes.io/zone", "A_1"),
            ("7up.example/Z_1", "1"),
            (&format!("{longest}/{longest}"), &longest),
        ] {
            assert!(topology(&[(key, value)]).is_ok(), "{key} {value}");
        }
        for (key, value) in [
            ("", "a"),
            ("/zone", "a"),
            ("a.example/", "a"),
            ("A.example/zone", "a"),
            ("a..example/zone", "a"),
            ("a.example./zone", "a"),
            ("a_b/zone", "a"),
            ("a/b/c", "a"),
            ("-zone", "a"),
            ("zone.", "a"),
            ("zo ne", "a"),
            (&longer, "a"),
            (&format!("{longer}/zone"), "a"),
            ("zone", ""),
            ("zone", "-a"),
            ("zone", "a."),
            ("zone", "a b"),
            ("zone", "ä"),
            ("zone", &longer),
        ] {
            let error = topology(&[(key, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{key} {value}: {error}");
        }
        assert!(topology(&[("zone", "a"), ("Zone", "b")]).unwrap_err().to_string().contains("twice"));
        assert!(topology(&[("zone", &"x".repeat(100_000))]).unwrap_err().to_string().len() < 200);
    }
}
