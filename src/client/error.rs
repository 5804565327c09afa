//! What goes wrong between an orchestrator and a plugin.

use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

/// An error of the orchestrator's side. Its text is complete: it does not need its source printed after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers on the socket.
    #[error("nobody answers on {path} after {waited:?}: {reason}; is the plugin running, and may this user open it?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// What the last try said.
        reason: String,
    },
    /// The plugin refused or failed a call.
    #[error("{rpc} answered {}: {message}", code_name(*code))]
    Rpc {
        /// The call, in the words of the specification.
        rpc: &'static str,
        /// The answer's code.
        code: Code,
        /// The answer's message.
        message: String,
    },
    /// An answer that the specification does not allow.
    #[error("{rpc} answered what the specification does not allow: {what}")]
    Answer {
        /// The call.
        rpc: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// What an orchestrator does on its own side, as making the staging folder.
    #[error("{what} {path}: {reason}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// A result of the orchestrator's side.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn rpc(rpc: &'static str, status: &tonic::Status) -> Self {
        Self::Rpc { rpc, code: status.code(), message: status.message().to_owned() }
    }

    pub(crate) fn local(what: &'static str, path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::Local { what, path: path.into(), reason: reason.to_string() }
    }

    /// The gRPC code, where the plugin answered with one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A code as the specification writes it: `INVALID_ARGUMENT`.
pub fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_in_the_specification() {
        assert_eq!(code_name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(code_name(Code::Internal), "INTERNAL");
        assert_eq!(code_name(Code::DeadlineExceeded), "DEADLINE_EXCEEDED");
    }
}
