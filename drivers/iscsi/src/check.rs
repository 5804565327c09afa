//! What `check` says of a node.

use std::path::Path;

use dunnage_driver_api::{Finding, InstanceId};

use crate::config::ChapPolicy;
use crate::initiator::ISCSIADM;
use crate::lio::CONFIGFS;

/// Whether this node knows whose volumes it is asked for.
pub(crate) fn instance(named: Option<&InstanceId>) -> Finding {
    match named {
        Some(instance) => Finding::ok(format!("volumes of instance {instance} are brought to this node")),
        None => Finding::error(
            "the key `instance` is missing, by which a node without the store knows its volumes",
            "run `dunnage init` on the store's node, and write what it prints into the configuration of all nodes",
        ),
    }
}

/// Whether all other nodes can know it, where the store is here.
pub(crate) fn named(named: Option<&InstanceId>, found: &[Finding]) -> Option<Finding> {
    let claims = found.iter().flat_map(|finding| &finding.claims);
    let is = claims.filter_map(|claim| claim.thing.strip_prefix("instance ")).next()?;
    match named {
        Some(named) if named.as_str() != is => Some(Finding::error(
            format!("the key `instance` says {named}, and the store is instance {is}"),
            "mount the right disk, or correct the key on all nodes",
        )),
        Some(_) => None,
        None => Some(Finding::warning(
            "the key `instance` is missing, so that no other node can use the volumes",
            format!("write `instance: {is}` into the configuration of all nodes"),
        )),
    }
}

/// Whether the kernel can export.
pub(crate) fn target() -> Finding {
    if Path::new(CONFIGFS).join("core").is_dir() {
        return Finding::ok("the kernel has an iSCSI target");
    }
    Finding::error(
        format!("the kernel shows no iSCSI target at {CONFIGFS}"),
        "run `modprobe -a iscsi_target_mod target_core_iblock` on the node at each start, mount configfs, and give the \
         container /sys/kernel/config",
    )
}

/// Whether this node can log in.
pub(crate) fn initiator() -> Finding {
    if ISCSIADM.find().is_none() {
        return Finding::error("iscsiadm is not installed", "install the package open-iscsi");
    }
    if Path::new("/sys/class/iscsi_transport/tcp").exists() {
        return Finding::ok("the kernel has an iSCSI initiator");
    }
    Finding::error(
        "the kernel has no iSCSI initiator: /sys/class/iscsi_transport/tcp is missing",
        "run `modprobe iscsi_tcp` on the node at each start, and `systemctl enable --now iscsid`",
    )
}

/// What nobody proves.
pub(crate) fn forged(chap: ChapPolicy) -> Finding {
    let remedy = "keep the network of the storage apart from everybody who may not read the volumes";
    match chap {
        ChapPolicy::Required => Finding::warning("nodes prove by CHAP who they are, and nothing is encrypted", remedy),
        ChapPolicy::Offered => Finding::warning(
            "a node is known to the target by its name alone unless its class names secrets, and nothing is encrypted",
            format!("{remedy}, and set `chap: required`"),
        ),
    }
}
