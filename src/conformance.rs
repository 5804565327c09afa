//! Whether a plugin, in any language, does what the CSI specification asks: `dunnage conformance`.
//!
//! # The parts
//! - [`Params`]: what the person knows and the plugin does not advertise: class parameters, secrets, sizes, folders.
//! - [`Case`]: one rule with the section that it stands in, and what the plugin must advertise for it to apply. Cases lie
//!   in `cases/`, one file for each area; each reads like its paragraph of the specification.
//! - `Kit`: what a case has in its hands: calls whose answers are checked, volumes that are brought to this
//!   node, content that is written and compared. It notes what was made before it is made, and takes all of it back
//!   after the case; what cannot be taken back fails the case.
//! - [`run`]: connects, finds out what the plugin can, goes through the cases, and gives a [`Report`].
//! - [`Show`]: the progress; [`junit`]: the report for a build server.
//!
//! # Rules of the kit
//! 1. A rule that the specification does not back is not here. What it asks with SHOULD is told as a warning.
//! 2. A case that does not apply is skipped with the reason: what is not advertised, not given, or not allowed here.
//! 3. A failure tells what was sent (without secrets), what came, and what the specification wants.
//! 4. Nothing waits for a time to pass. ABORTED, which the specification allows while another call is pending, is
//!    repeated until it ends.
//!
//! Lists that change while they are paged through may lose and repeat entries by the specification ("ListVolumes"): the
//! kit asks for complete pages only where nothing changes.

mod cases;
mod content;
mod failure;
mod junit;
mod kit;
mod mounts;
mod needs;
mod params;
mod plan;
mod render;
mod report;
mod run;
mod samples;
mod started;
mod undo;
mod using;

pub use failure::Failure;
pub use junit::junit;
pub use params::{BadParams, Kind, Params};
pub use plan::{Case, Strength, cases};
pub use render::Human;
pub use report::{Outcome, Report, Verdict};
pub use run::{CannotRun, Options, run};

/// Who is told of the progress.
pub trait Show {
    /// The plugin answers, and this many cases are gone through; notes are what may make them fail that is no fault of it.
    fn start(&mut self, plugin: &str, cases: usize, notes: &[String]) -> std::io::Result<()>;

    /// A case is over.
    fn outcome(&mut self, outcome: &Outcome) -> std::io::Result<()>;

    /// All are.
    fn end(&mut self, report: &Report) -> std::io::Result<()>;
}

/// Nobody is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Show for Quiet {
    fn start(&mut self, _: &str, _: usize, _: &[String]) -> std::io::Result<()> {
        Ok(())
    }

    fn outcome(&mut self, _: &Outcome) -> std::io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &Report) -> std::io::Result<()> {
        Ok(())
    }
}
