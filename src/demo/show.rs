//! What happens in a demo, apart from how it looks.

use std::io;

use serde::Serialize;

/// One thing to show.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Event {
    /// The demo begins.
    Start {
        /// The program's version.
        version: String,
        /// With what rights.
        footing: String,
        /// Where everything lies.
        folder: String,
        /// The drivers that are shown.
        drivers: Vec<String>,
        /// Why one is left out.
        without: Option<String>,
    },
    /// A volume's life, or another group of steps, begins.
    Section {
        /// What it is about.
        title: String,
        /// Of which plugin, where it is of one.
        plugin: Option<String>,
    },
    /// Something was done.
    Step {
        /// What the orchestrator asked, in the words of the specification, or what a pod did, in parentheses.
        call: String,
        /// What came of it.
        text: String,
        /// What the plugin said, where its words are what is shown.
        said: Option<String>,
        /// What should have come of it, where it did not.
        expected: Option<String>,
        /// Whether it came as expected.
        ok: bool,
        /// How long it took.
        micros: u64,
    },
    /// The demo is over.
    End {
        /// How many steps there were.
        steps: usize,
        /// How many of them failed.
        failed: usize,
        /// Whether it was interrupted.
        interrupted: bool,
        /// How long it took in all.
        micros: u64,
        /// What was kept, where that was asked for.
        kept: Option<String>,
    },
}

/// Shows events as they come.
pub trait Show {
    /// Shows one.
    ///
    /// # Errors
    /// Where what it writes to is gone.
    fn show(&mut self, event: &Event) -> io::Result<()>;
}
