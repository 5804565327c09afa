//! What is measured.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::client::{Access, Endpoint};

/// The work that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Whole lives: create, attach, stage, publish, a write in the volume, and all of it back.
    Lives,
    /// Creates that are kept, then their deletes.
    Creates,
    /// Walks through all pages of ListVolumes.
    Lists,
}

/// A measurement.
#[derive(Debug, Clone)]
pub struct Options {
    /// The plugin.
    pub endpoint: Endpoint,
    /// A second plugin, measured on the same work in turns with the first.
    pub against: Option<Endpoint>,
    /// The work.
    pub mode: Mode,
    /// How many lives, creates or walks for each number of workers.
    pub lives: usize,
    /// How many do it at once: one measurement for each number.
    pub workers: Vec<usize>,
    /// How many volumes are made before, and deleted after: the plugin is measured with these there.
    pub fill: usize,
    /// Bytes of a volume.
    pub size: i64,
    /// How volumes are used.
    pub access: Access,
    /// The parameters of the class.
    pub parameters: HashMap<String, String>,
    /// `max_entries` of ListVolumes.
    pub page_size: i32,
    /// The plugin's process, found by its socket where it is not given.
    pub pid: Option<u32>,
    /// Where staging and target paths are made. The plugin must see the same folder.
    pub dir: PathBuf,
}
