//! Attaching volumes to nodes: who may reach a volume that several nodes could.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capability::{Access, AccessMode, VolumeCapability};
use crate::context::Context;
use crate::error::Result;
use crate::id::{Generation, NodeId, VolumeKey};
use crate::volume::Volume;

/// Letting nodes use a volume, and no others (CSI PUBLISH_UNPUBLISH_VOLUME): exports, grants, mappings.
///
/// The rules are the host's: it asks what is there, refuses what does not go together, makes the [`Attachment`], and
/// passes it on. A driver keeps it and sees to it that it is so. Calls for one volume never run at once.
pub trait Attach: Send + Sync {
    /// Makes what serves the volumes as what is kept of their attachments says. Called once, before any other call, when the
    /// host has proven that the store is this backend's and no copy of another one's: to open a backend must change nothing
    /// that others may use.
    ///
    /// # Errors
    /// Where a node may reach what it was not, or is no longer, let use: the backend is not served then. That one volume
    /// cannot be reached is no error.
    fn restore(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// The attachments of the volume, in any order; none of one that does not exist. Asked for each volume of a list.
    ///
    /// # Errors
    /// Where it cannot be told: "none" would let a second node write.
    fn attached(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<Vec<Attachment>>;

    /// Lets the node use the volume. Durable when this returns, also over a restart of whatever serves the volume. May be
    /// called again for an attachment that is there: then what it needs is made anew where it is missing.
    ///
    /// Answers what the node must be told (CSI publish_context): always the same for one attachment, and no secrets.
    ///
    /// # Errors
    /// After an error the attachment may be there: it is then answered by [`attached`](Self::attached), and ended by
    /// [`detach`](Self::detach).
    fn attach(&self, cx: &Context, volume: &Volume, attachment: &Attachment) -> Result<BTreeMap<String, String>>;

    /// Ends an attachment: when this returns the node can reach the volume no more, whatever it has open or still sends.
    /// Succeeds where it is not there, also where the volume is gone.
    ///
    /// # Errors
    /// Where the node may still reach the volume.
    fn detach(&self, cx: &Context, key: &VolumeKey, generation: &Generation, node: &NodeId) -> Result<()>;
}

/// That a node may use a volume. A driver keeps it from before [`attach`](Attach::attach) answers until
/// [`detach`](Attach::detach) does, and gives back exactly what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attachment {
    /// The node.
    pub node: NodeId,
    /// Which of all attachments it is: no two ever have the same. What still comes from an earlier one of the same node
    /// must not reach the volume through this one.
    pub word: Generation,
    /// Whether it is used as a raw block device.
    pub block: bool,
    /// By how many nodes and writers at once.
    pub mode: AccessMode,
    /// Whether the node may not write, whatever the mode says.
    pub readonly: bool,
}

impl Attachment {
    /// The key of the publish_context by which the host tells its own node half of the attachment's `word`.
    pub const WORD: &str = "csi.dunnage.dev/attachment";
    /// The key of the publish_context by which the host tells its own node half that nobody may write.
    pub const READONLY: &str = "csi.dunnage.dev/readonly";

    /// A new one.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn new(node: NodeId, capability: &VolumeCapability, readonly: bool) -> Result<Self> {
        let block = capability.access == Access::Block;
        Ok(Self { node, word: Generation::random()?, block, mode: capability.mode, readonly })
    }

    /// Whether nobody may write by it.
    pub fn is_read_only(&self) -> bool {
        self.readonly || self.mode.is_read_only()
    }

    /// Whether both were asked for in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.block, self.mode, self.readonly) == (other.block, other.mode, other.readonly)
    }
}
