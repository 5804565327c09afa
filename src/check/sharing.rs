//! What a shared name takes away from the backends behind it.

use std::time::Duration;

use dunnage_driver_api::Finding;

use crate::client::{Endpoint, Plugin};
use crate::config::PluginConfig;
use crate::registry::LOSES;

/// A plugin that is served answers at once.
const WAIT: Duration = Duration::from_secs(2);

/// What the running host says: abilities are known once a backend is open, and to open one would change it.
pub(super) fn findings(plugin: &PluginConfig) -> Vec<Finding> {
    let Ok(runtime) = crate::host::runtime() else {
        return vec![Finding::warning("cannot start a runtime to ask the host", "free memory and processes")];
    };
    let asked = async { Plugin::connect(&Endpoint::at(&plugin.socket).ok()?, WAIT).await.ok() };
    let Some(client) = runtime.block_on(asked) else {
        return vec![Finding::ok("is not served now: what sharing the name takes away is told while it is")];
    };
    let lost = |(key, loss): (&String, &String)| {
        let backend = key.strip_suffix(LOSES)?;
        let remedy = "leave the backend out of `plugins` where that is wanted: it then has a name of its own";
        Some(Finding::warning(format_args!("sharing the name takes from backend {backend}: {loss}"), remedy))
    };
    let findings: Vec<_> = client.offers().manifest.iter().filter_map(lost).collect();
    if findings.is_empty() { vec![Finding::ok("sharing the name takes nothing from its backends")] } else { findings }
}
