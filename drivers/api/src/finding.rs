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
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at and what was found.
    pub text: String,
    /// What the admin can do; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// What the backend takes for itself of this node.
    #[serde(skip)]
    pub claims: Vec<Claim>,
}

/// A thing that one backend takes for itself. The host compares what the backends of a configuration claim, since no
/// driver knows of another: where two claim one thing `check` tells so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Text that everyone has for this thing, and for no other: its kind and what tells it from others of the kind.
    pub thing: String,
    /// What is wrong where somebody else claims it too; the host adds who.
    pub clash: Box<Finding>,
}

impl Finding {
    fn new(severity: Severity, text: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { severity, text: text.to_string(), remedy: remedy.to_string(), claims: Vec::new() }
    }

    /// The same finding, with a claim to `thing`; `clash` is what is wrong where another backend claims it too.
    #[must_use]
    pub fn claiming(mut self, thing: impl fmt::Display, clash: Self) -> Self {
        self.claims.push(Claim { thing: thing.to_string(), clash: Box::new(clash) });
        self
    }

    /// Something that is as it should be.
    pub fn ok(text: impl fmt::Display) -> Self {
        Self::new(Severity::Ok, text, "")
    }

    /// Something that works with a loss.
    pub fn warning(text: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self::new(Severity::Warning, text, remedy)
    }

    /// Something that will not work.
    pub fn error(text: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self::new(Severity::Error, text, remedy)
    }
}
