//! How a case ends before its end.

use std::fmt;

use serde::Serialize;

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The request, or what was done on this side. Never a secret.
    pub sent: String,
    /// The answer, or what was found.
    pub came: String,
    /// What the specification wants.
    pub wants: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent: {}\ncame: {}\nwants: {}", self.sent, self.came, self.wants)
    }
}

/// Why a case goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// A rule is broken.
    Failed(Failure),
    /// The rule does not apply, for this reason.
    Skipped(String),
}

/// What a case gives.
pub(super) type Checked<T = ()> = Result<T, Stop>;

impl Stop {
    pub(super) fn failed(sent: impl fmt::Display, came: impl fmt::Display, wants: impl fmt::Display) -> Self {
        Self::Failed(Failure { sent: short(sent), came: short(came), wants: wants.to_string() })
    }

    /// What this side could not do: the case cannot go on, and that is not hidden.
    pub(super) fn local(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::failed(
            format_args!("(this side) {what}"),
            error,
            "a path that this side can use after the plugin's answer",
        )
    }
}

impl From<crate::client::Error> for Stop {
    fn from(error: crate::client::Error) -> Self {
        Self::failed("(this side)", error, "a plugin that can be reached, and folders that can be used")
    }
}

/// The longest text of a message that helps a reader.
const LONGEST: usize = 1200;

fn short(text: impl fmt::Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} … ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
