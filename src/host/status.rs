//! What is up and what is not, as health and readiness tell it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backend::{Slot, State};
use crate::config::PluginConfig;
use crate::telemetry::{BackendHealth, Health};

/// What is up and what is not.
pub struct Status {
    slots: Vec<Slot>,
    plugins: Mutex<Vec<PluginStatus>>,
}

struct PluginStatus {
    line: String,
    up: bool,
    /// Whether any of its backends is on this node.
    here: bool,
}

impl Status {
    pub(super) fn new(slots: &[Slot], plugins: &[PluginConfig]) -> Self {
        let here = |index: &usize| slots.get(*index).is_some_and(|slot| !matches!(slot.state(), State::Elsewhere));
        let plugins = plugins
            .iter()
            .map(|plugin| PluginStatus {
                line: format!("{}: waits for its backends", plugin.csi_name),
                up: false,
                here: plugin.backends.iter().any(here),
            })
            .collect();
        Self { slots: slots.to_vec(), plugins: Mutex::new(plugins) }
    }

    fn plugins(&self) -> MutexGuard<'_, Vec<PluginStatus>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn up(&self, index: usize) {
        if let Some(plugin) = self.plugins().get_mut(index) {
            plugin.up = true;
        }
    }

    pub(super) fn down(&self, index: usize, why: String) {
        if let Some(plugin) = self.plugins().get_mut(index) {
            plugin.up = false;
            plugin.line = why;
        }
    }
}

impl Health for Status {
    fn waits_for(&self) -> Vec<String> {
        self.plugins().iter().filter(|one| one.here && !one.up).map(|one| one.line.clone()).collect()
    }

    fn backends(&self) -> Vec<BackendHealth> {
        let health = |slot: &Slot| {
            if matches!(slot.state(), State::Elsewhere) {
                return None;
            }
            let adverse = slot.adverse();
            let (healthy, message) = (adverse.is_none(), adverse.unwrap_or_default());
            Some(BackendHealth { backend: slot.config.name.to_string(), healthy, message })
        };
        self.slots.iter().filter_map(health).collect()
    }
}
