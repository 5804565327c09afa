//! The names of initiators and targets and the serial numbers of units: all made from what the orchestrator passes.

use dunnage_driver_api::{ExportId, NodeId};
use sha2::{Digest, Sha256};

/// What every IQN of ours begins with.
const PREFIX: &str = "iqn.2026-01.dev.dunnage:";
/// The most bytes of an iSCSI name.
const LONGEST: usize = 223;

/// Whether a text is an iSCSI name, of any of the three kinds.
pub(crate) fn is_name(text: &str) -> bool {
    let kind = ["iqn.", "eui.", "naa."].iter().any(|kind| text.starts_with(kind));
    let allowed =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' | b'_' | b'+' | b'~');
    kind && text.len() <= LONGEST && text.bytes().all(allowed)
}

/// The target of an export.
pub(crate) fn target(id: &ExportId) -> String {
    format!("{PREFIX}{id}")
}

/// The export that a target is, if it is one.
pub(crate) fn export(iqn: &str) -> Option<ExportId> {
    iqn.strip_prefix(PREFIX)?.parse().ok()
}

/// The initiator that a node is.
pub(crate) fn initiator(node: &NodeId) -> String {
    format!("{PREFIX}node:{node}")
}

/// Whether an initiator's name is that of a node of ours.
pub(crate) fn is_ours(initiator: &str) -> bool {
    initiator.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with("node:"))
}

/// What open-iscsi calls the settings by which this node logs in.
pub(crate) fn iface(node: &NodeId) -> String {
    format!("dunnage-{}", digest(&initiator(node), 8))
}

/// The serial number of the unit of an export (VPD page 0x80): of an attachment, so that no two units ever have the same.
pub(crate) fn serial(id: &ExportId) -> String {
    digest(&target(id), 16)
}

fn digest(name: &str, bytes: usize) -> String {
    Sha256::digest(name.as_bytes())[..bytes].iter().map(|byte| format!("{byte:02x}")).collect()
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
        assert_eq!(target(&id()), format!("iqn.2026-01.dev.dunnage:{}", id()));
        assert_eq!(export(&target(&id())), Some(id()));
        assert_eq!(initiator(&node), format!("iqn.2026-01.dev.dunnage:node:{node}"));
        assert_eq!(export(&initiator(&node)), None);
        assert_eq!(serial(&id()).len(), 32);
    }

    #[test]
    fn the_longest_names_are_names() {
        let long = "n".repeat(253);
        assert!(is_name(&initiator(&NodeId::of(&long.parse().unwrap()))));
        assert!(PREFIX.len() + 133 <= LONGEST);
        for text in ["", "nqn.x", &format!("iqn.{long}"), "iqn.a,b", "iqn.a b", "iqn.a/b"] {
            assert!(!is_name(text), "{text:?}");
        }
    }
}
