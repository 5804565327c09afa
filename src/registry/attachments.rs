//! The rules over attachments that are the same for every driver.

use std::collections::BTreeMap;

use dunnage_driver_api::{
    AccessMode, Attachment, Context, Error, ErrorKind, NodeId, Result, Volume, VolumeCapability, VolumeId,
};

use super::backend::ServedBackend;

/// Who is to use a volume, and how.
pub struct AttachTo {
    /// The node.
    pub node: NodeId,
    /// How it is to be used.
    pub capability: VolumeCapability,
    /// Whether the node may not write.
    pub readonly: bool,
}

impl ServedBackend {
    /// What the calls of this backend see of the node: a volume that is attached may be in use where nothing is seen.
    pub fn seen(&self, cx: &Context) -> Context {
        match &self.backend.attach {
            Some(attach) => cx.clone().with_attach(attach.clone()),
            None => cx.clone(),
        }
    }

    /// Lets a node use the volume, and answers what it must be told; nothing, where volumes of this backend are attached to
    /// nobody.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the volume does not exist; [`ErrorKind::AlreadyExists`] where it is attached to the node
    /// in another way; [`ErrorKind::FailedPrecondition`] where another node has it, and one of both must have it alone.
    pub fn attach(&self, cx: &Context, volume: &Volume, to: AttachTo) -> Result<BTreeMap<String, String>> {
        self.supports(&to.capability)?;
        let Some(attach) = &self.backend.attach else {
            return if to.readonly { Err(self.no_readonly()) } else { Ok(BTreeMap::new()) };
        };
        let mut wanted = Attachment::new(to.node, &to.capability, to.readonly)?;
        for known in attach.attached(cx, &volume.key, &volume.generation)? {
            if known.node == wanted.node {
                if !known.is_like(&wanted) {
                    return Err(attached_otherwise(&known));
                }
                wanted = known;
            } else if !go_together(&known, &wanted) {
                return Err(Error::precondition(format!(
                    "the volume is attached to node {} (mode {}), and mode {} is asked for: detach it there first",
                    known.node, known.mode, wanted.mode
                )));
            }
        }
        let mut context = attach.attach(cx, volume, &wanted)?;
        context.insert(Attachment::WORD.to_owned(), wanted.word.to_string());
        if wanted.is_read_only() {
            context.insert(Attachment::READONLY.to_owned(), "true".to_owned());
        }
        Ok(context)
    }

    /// Ends the attachment of the volume to this node, or to all; succeeds where there is none, and where the volume is
    /// gone.
    ///
    /// # Errors
    /// Where a node may still reach it.
    pub fn detach(&self, cx: &Context, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        let Some(attach) = &self.backend.attach else { return Ok(()) };
        let ended: Vec<NodeId> = match node {
            Some(node) => vec![node.clone()],
            None => {
                attach.attached(cx, &id.key, &id.generation)?.into_iter().map(|attachment| attachment.node).collect()
            }
        };
        ended.iter().try_for_each(|node| attach.detach(cx, &id.key, &id.generation, node))
    }

    /// The nodes that the volume is attached to, as CSI names them.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn attached_nodes(&self, cx: &Context, volume: &Volume) -> Result<Vec<String>> {
        let Some(attach) = &self.backend.attach else { return Ok(Vec::new()) };
        let attached = attach.attached(cx, &volume.key, &volume.generation)?;
        Ok(attached.into_iter().map(|attachment| attachment.node.to_string()).collect())
    }

    /// That no node may use the volume.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] that names one which may.
    pub(super) fn refuse_attached(&self, cx: &Context, volume: &Volume) -> Result<()> {
        match self.attached_nodes(cx, volume)?.first() {
            Some(node) => Err(Error::precondition(format!(
                "the volume is attached to node {node}: unpublish it from there first (ControllerUnpublishVolume)"
            ))),
            None => Ok(()),
        }
    }

    fn no_readonly(&self) -> Error {
        Error::invalid(format!(
            "readonly is set, and volumes of backend {} are attached to nobody: publish read-only on the node instead",
            self.name
        ))
    }
}

/// Whether two nodes may have a volume at once in these ways.
fn go_together(known: &Attachment, wanted: &Attachment) -> bool {
    let both = [known, wanted];
    let has_one_node = both.iter().any(|one| one.mode.is_single_node());
    let has_one_writer = both.iter().any(|one| one.mode == AccessMode::MultiNodeSingleWriter);
    !(has_one_node || has_one_writer && both.iter().all(|one| !one.is_read_only()))
}

fn attached_otherwise(known: &Attachment) -> Error {
    let (access, how) = (if known.block { "block" } else { "mount" }, if known.readonly { ", readonly" } else { "" });
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the volume is attached to node {} in another way ({access}, {}{how}): detach it there first",
            known.node, known.mode
        ),
    )
}
