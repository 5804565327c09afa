//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file, both numbers counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character in the line.
    pub column: u64,
}

/// What is wrong with a configuration, and where. Shown as `FILE:LINE:COLUMN: message`, which editors can follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    place: Option<Place>,
    message: String,
    unreadable: bool,
}

impl ConfigError {
    pub(super) fn new(place: Option<Place>, message: impl Into<String>) -> Self {
        Self { file: None, place, message: message.into(), unreadable: false }
    }

    /// The file itself cannot be had.
    pub(super) fn unreadable(error: &std::io::Error) -> Self {
        Self { unreadable: true, ..Self::new(None, format!("cannot read it: {error}")) }
    }

    /// The same error, of this file.
    pub(super) fn of_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Where it is; `None` for what does not stand in the file, as an environment variable.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// What the admin can do.
    pub fn remedy(&self) -> &'static str {
        match (self.unreadable, self.place) {
            (true, _) => "name a file with --config or DUNNAGE_CONFIG that is there, and run this as who may read it",
            (false, Some(_)) => "mend that line, then check again",
            (false, None) => "mend that, then check again",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.place) {
            (Some(file), Some(Place { line, column })) => write!(f, "{}:{line}:{column}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some(Place { line, column })) => write!(f, "line {line}, column {column}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}
