//! Measures any CSI plugin over its socket.
//!
//! Whole lives of volumes, creates that are kept and then deleted, or walks through ListVolumes, by several numbers of
//! workers; a second plugin can be measured on the same work in turns. Whatever is made is deleted again, after a
//! failure and after an interrupt too.

mod names;
mod options;
mod phase;
mod plot;
mod process;
mod report;
mod run;
mod samples;
mod side;
mod svg;
mod table;
mod view;
mod work;

pub use options::{Mode, Options};
pub use plot::plot;
pub use report::{CallReport, PhaseReport, Ratio, Report, SideReport};
pub use run::run;
pub use samples::{Samples, percentile};
pub use table::table;

#[cfg(test)]
mod tests;
