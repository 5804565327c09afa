//! How a configured backend is opened, by whatever command.

use std::sync::Arc;

use dunnage_driver_api::{Commands, NodeName, Opening};

use crate::config::{BackendConfig, Mode};
use crate::mount::{Creators, OfDrivers};

impl BackendConfig {
    /// How it is opened on `node` by a process that runs `mode`.
    pub fn opening(&self, node: &NodeName, mode: Mode, commands: Arc<dyn Commands>) -> Opening {
        let opening = Opening::new(self.name.clone(), node.clone(), commands);
        let opening = opening.with_threads(self.workers.threads.get().into());
        let opening = opening.with_mounts(Arc::new(OfDrivers(Creators::own())));
        if mode != Mode::Node && self.has_store(node) { opening } else { opening.of_node_half() }
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::System;

    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn a_driver_is_told_how_many_threads_its_backend_has() {
        let text =
            "node: here\nbackends: [{name: scratch, driver: dir, root: /srv, quota: none, workers: {threads: 3}}]";
        let config = Config::parse(text, &crate::drivers(), &Environment::default()).unwrap();
        let opening = config.backends[0].opening(&config.node, config.mode, Arc::new(System));
        assert_eq!((opening.threads, opening.store_here), (3, true));
    }
}
