//! How a configured backend is opened, by whatever command.

use std::sync::Arc;

use dunnage_driver_api::{Commands, NodeName, Opening};

use crate::config::{BackendConfig, Mode};
use crate::mount::{Creators, OfDrivers};

impl BackendConfig {
    /// How it is opened on `node` by a process that runs `mode`.
    pub fn opening(&self, node: &NodeName, mode: Mode, commands: Arc<dyn Commands>) -> Opening {
        let opening = Opening::new(self.name.clone(), node.clone(), commands);
        let opening = opening.with_mounts(Arc::new(OfDrivers(Creators::own())));
        if mode != Mode::Node && self.has_store(node) { opening } else { opening.of_node_half() }
    }
}
