//! By what right this node has a device: whether another one can have had it since.
//!
//! A device that several nodes can reach is one node's for as long as an attachment lasts. ControllerPublishVolume makes a
//! word for each attachment that no other ever gets, and the orchestrator passes it on: a node that sees the same word
//! again knows that nobody had the device in between.

use std::collections::BTreeMap;
use std::ops::Deref;

use dunnage_driver_api::{Attachment, DeviceSource, Error, Reach, Result};

use super::sys;

/// By what right this node has a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holding {
    /// No other node can reach it.
    OfNode,
    /// By an attachment.
    Attached {
        /// Its word.
        word: String,
        /// Whether nobody may write by it.
        read_only: bool,
    },
    /// Other nodes can reach it at any time.
    Shared,
}

impl Holding {
    /// That of a volume with this reach and publish_context.
    pub(super) fn new(reach: Reach, publish_context: &BTreeMap<String, String>) -> Self {
        match (reach, publish_context.get(Attachment::WORD)) {
            (Reach::Node, _) => Self::OfNode,
            (Reach::Everywhere, Some(word)) if !word.is_empty() => Self::Attached {
                word: word.clone(),
                read_only: publish_context.get(Attachment::READONLY).is_some_and(|value| value == "true"),
            },
            (Reach::Everywhere, _) => Self::Shared,
        }
    }

    /// Whether nobody may write to the device, whatever its kernel says.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Attached { read_only: true, .. })
    }

    /// The word of the attachment.
    pub(super) fn attachment(&self) -> Option<&str> {
        match self {
            Self::Attached { word, .. } => Some(word),
            Self::OfNode | Self::Shared => None,
        }
    }
}

/// A device that a driver has brought, and by what right.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) source: DeviceSource,
    pub(super) holding: Holding,
}

impl Deref for Brought {
    type Target = DeviceSource;

    fn deref(&self) -> &DeviceSource {
        &self.source
    }
}

impl Brought {
    /// Makes the device read-only on this node.
    pub(super) fn make_read_only(&self) -> Result<()> {
        sys::set_device_read_only(&self.device, true)
            .map_err(|error| Error::io(format!("cannot make {} read-only", self.path.display()), error))
    }

    /// Makes it as it came.
    pub(super) fn make_writable(&self) -> Result<()> {
        sys::set_device_read_only(&self.device, false)
            .map_err(|error| Error::io(format!("cannot make {} writable again", self.path.display()), error))
    }

    /// Has the kernel forget what it has read of the device before, where another node may have written since.
    pub(super) fn forget_cached(&self) -> Result<()> {
        if self.holding == Holding::OfNode {
            return Ok(());
        }
        sys::forget_cached(&self.device).map_err(|error| {
            Error::io(format!("cannot have the kernel forget what it knows of {}", self.path.display()), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_others_reach_needs_an_attachment() {
        let with = |word: &str| BTreeMap::from([(Attachment::WORD.to_owned(), word.to_owned())]);
        assert_eq!(Holding::new(Reach::Node, &with("a")), Holding::OfNode);
        let attached = Holding::new(Reach::Everywhere, &with("a"));
        assert_eq!((attached.attachment(), attached.is_read_only()), (Some("a"), false));
        let mut readonly = with("a");
        readonly.insert(Attachment::READONLY.to_owned(), "true".to_owned());
        assert!(Holding::new(Reach::Everywhere, &readonly).is_read_only());
        assert_eq!(Holding::new(Reach::Everywhere, &with("")), Holding::Shared);
        assert_eq!(Holding::new(Reach::Everywhere, &BTreeMap::new()), Holding::Shared);
    }
}
