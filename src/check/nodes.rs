//! Whether this node has any of the backends.

use dunnage_driver_api::Finding;

use crate::config::Config;

/// A warning, since one configuration may be that of many nodes.
pub(super) fn finding(config: &Config) -> Option<Finding> {
    if config.backends.iter().any(|backend| backend.is_on(&config.node, config.mode)) {
        return None;
    }
    Some(Finding::warning(
        format_args!("none of the backends is on this node: no `nodes` has {:?}", config.node.as_str()),
        "correct `nodes`, or `node` (or NODE_NAME), if this node should have one",
    ))
}
