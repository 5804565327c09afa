//! Everything that could go wrong on this node, looked for without changing anything.

mod backend;
mod clash;
mod file_system;
mod folder;
mod kernel;
mod nodes;
mod privilege;
mod sharing;
mod socket;
mod state;
mod telemetry;

use dunnage_driver_api::{DriverEntry, Finding};
use serde::Serialize;

use crate::config::Config;
use crate::host::Memory;

/// What was found about one thing.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// What it is about.
    pub subject: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Section {
    /// A section.
    pub fn new(subject: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self { subject: subject.into(), findings }
    }
}

/// Looks at this node with this configuration.
pub fn check(config: &Config, drivers: &[DriverEntry]) -> Vec<Section> {
    let (locked, state) = state::findings(config);
    let mut node = vec![kernel::finding(), privilege::look()];
    node.extend(file_system::findings());
    node.extend(nodes::finding(config));
    node.push(telemetry::finding(config.telemetry, locked));
    let mut sockets = folder::findings(config);
    sockets.extend(config.plugins.iter().map(|plugin| socket::finding(&plugin.socket, locked)));
    let mut sections = vec![
        Section::new(format!("node {}", config.node), node),
        Section::new("state", state),
        Section::new("sockets", sockets),
    ];
    let memory = Memory::new(&config.state);
    let mut backends: Vec<_> = config
        .backends
        .iter()
        .map(|backend| (&backend.name, backend::findings(backend, config, &memory, drivers)))
        .collect();
    clash::add(&mut backends);
    sections.extend(backends.into_iter().map(|(name, findings)| Section::new(format!("backend {name}"), findings)));
    let shared = config.plugins.iter().filter(|plugin| plugin.shared);
    sections
        .extend(shared.map(|plugin| Section::new(format!("plugin {}", plugin.csi_name), sharing::findings(plugin))));
    sections
}
