//! What `check` says of a node.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, with a loss that the text names.
    Warning,
    /// Will not work until it is mended.
    Error,
}

/// One thing that was looked at, and how to mend it where it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at and what was found.
    pub text: String,
    /// What the admin can do; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(text: impl fmt::Display) -> Self {
        Self { severity: Severity::Ok, text: text.to_string(), remedy: String::new() }
    }

    /// Something that works with a loss.
    pub fn warning(text: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { severity: Severity::Warning, text: text.to_string(), remedy: remedy.to_string() }
    }

    /// Something that will not work.
    pub fn error(text: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { severity: Severity::Error, text: text.to_string(), remedy: remedy.to_string() }
    }
}
