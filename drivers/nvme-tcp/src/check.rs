//! What `check` says of a node.

use dunnage_driver_api::{Finding, InstanceId};

use crate::initiator::Initiator;
use crate::nvmet::CONFIGFS;

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
    if std::path::Path::new(CONFIGFS).is_dir() {
        return Finding::ok("the kernel has an NVMe target");
    }
    Finding::error(
        format!("the kernel shows no NVMe target at {CONFIGFS}"),
        "run `modprobe nvmet-tcp` on the node at each start, mount configfs, and give the container /sys/kernel/config",
    )
}

/// Whether the kernel can connect.
pub(crate) fn initiator() -> Finding {
    if Initiator::default().is_there() {
        return Finding::ok("the kernel has an NVMe initiator");
    }
    Finding::error(
        "the kernel has no NVMe initiator: /dev/nvme-fabrics is missing",
        "run `modprobe nvme-tcp` on the node at each start, and give the container the node's /dev",
    )
}

/// What no key can mend.
pub(crate) fn forged() -> Finding {
    Finding::warning(
        "a node is known to the target by its name alone, and nothing is encrypted",
        "keep the network of the storage apart from everybody who may not read the volumes",
    )
}
