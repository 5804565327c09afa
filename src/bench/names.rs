//! Names that no other run uses.

use std::time::{SystemTime, UNIX_EPOCH};

/// The start of every volume's name of one run: tells an admin who made them, should any be left.
#[derive(Debug, Clone)]
pub(crate) struct Names(String);

impl Names {
    pub(crate) fn new(side: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(format!("bench-{:x}-{:x}-{side}", std::process::id(), now.as_micros()))
    }

    /// The name of one volume; `part` tells lots apart that exist at the same time.
    pub(crate) fn volume(&self, part: &str, number: usize) -> String {
        format!("{}-{part}-{number}", self.0)
    }
}
