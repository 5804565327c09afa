//! What is mounted of backends that the configuration has no more.

use std::collections::BTreeMap;

use dunnage_driver_api::{InstanceId, Result};

use super::memory::Memory;
use crate::config::Config;
use crate::mount::Engine;

/// Warns of volumes that are staged or published here, and that no backend of this node can take away: without their
/// plugin nobody is asked to.
///
/// # Errors
/// Where it cannot be told.
pub(super) fn warn(config: &Config, engine: &Engine, memory: &Memory) -> Result<()> {
    let mut orphans: BTreeMap<InstanceId, usize> = BTreeMap::new();
    for volume in engine.recorded()? {
        *orphans.entry(volume.instance).or_default() += 1;
    }
    for backend in config.backends.iter().filter(|backend| backend.is_on(&config.node, config.mode)) {
        match memory.instance(&backend.name)? {
            Some(instance) => {
                for own in memory.former(&backend.name).iter().chain([&instance]) {
                    orphans.remove(own);
                }
            }
            // Nobody knows yet whose it is.
            None => return Ok(()),
        }
    }
    for (instance, volumes) in orphans {
        tracing::warn!(
            %instance,
            volumes,
            "volumes of an instance that no backend of this node has are staged or published here: add its backend again \
             to take them away"
        );
    }
    Ok(())
}
