//! The one error type of the contract.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What went wrong, in the terms an orchestrator can act on.
///
/// The host maps each kind to one gRPC code, in one table. The codes that mean "still running" to an orchestrator
/// (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, ABORTED) belong to the host's table of operations: no kind but
/// [`Running`](Self::Running) maps to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can never succeed as it is: a parameter, a name, a path.
    InvalidArgument,
    /// The object does not exist, said by a store that was read and proven to be ours.
    NotFound,
    /// An object of this name exists and differs from what is asked.
    AlreadyExists,
    /// The state of the volume, the node or the store forbids it; the message says what to change.
    FailedPrecondition,
    /// The size can never be met here, by whatever is freed.
    OutOfRange,
    /// There is no room now; another node, or a later time, may have it.
    ResourceExhausted,
    /// The store or the kernel refused the credentials or the right.
    PermissionDenied,
    /// Work that the call began, or an earlier one, goes on by itself: the same call repeated tells how it ended.
    Running,
    /// The call, or this form of it, is not offered.
    Unsupported,
    /// Anything else: an I/O error, a broken record, a tool that failed.
    Internal,
}

/// An error of a driver or of the host: a kind, whether a retry can help, what was tried on what, and the source.
///
/// Its text is written for the admin: lower case, what failed and on what, with the value and the remedy. It holds
/// no secret and does not repeat its source, which is printed after it. It can be cloned, since every caller that joined
/// one operation gets the same answer.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    retry: bool,
    operation: Cow<'static, str>,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// A result of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that `message` explains. A retry is thought to help where the kind says "now" or nothing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: matches!(kind, ErrorKind::ResourceExhausted | ErrorKind::Running | ErrorKind::Internal),
            operation: Cow::Borrowed(""),
            message: message.into(),
            context: Vec::new(),
            source: None,
        }
    }

    /// An [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// An [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// An [`ErrorKind::FailedPrecondition`].
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }

    /// An [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error of the operating system, its kind taken from the error number: ENOSPC and EDQUOT are
    /// [`ErrorKind::ResourceExhausted`], EROFS is [`ErrorKind::FailedPrecondition`], EACCES and EPERM are
    /// [`ErrorKind::PermissionDenied`], all others [`ErrorKind::Internal`]. ENOENT is not "not found": that a path is
    /// missing says nothing of the volume.
    pub fn io(message: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let kind = match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::ResourceExhausted,
            Some(libc::EROFS) => ErrorKind::FailedPrecondition,
            Some(libc::EACCES | libc::EPERM) => ErrorKind::PermissionDenied,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, message).caused_by(source)
    }

    /// Adds what was being done, in a few words: "create the directory".
    #[must_use]
    pub fn during(mut self, operation: impl Into<Cow<'static, str>>) -> Self {
        self.operation = operation.into();
        self
    }

    /// Adds a value that the reader needs: an id, a path, a size.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Adds the error this one follows from.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Says whether the same call can succeed later without anybody changing anything.
    #[must_use]
    pub fn retry(mut self, can_help: bool) -> Self {
        self.retry = can_help;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call can succeed later without anybody changing anything.
    pub fn retry_can_help(&self) -> bool {
        self.retry
    }

    /// The error with all the errors it follows from, in one line: what an orchestrator is told.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.operation.is_empty() {
            write!(f, "{}: ", self.operation)?;
        }
        f.write_str(&self.message)?;
        for (index, (key, value)) in self.context.iter().enumerate() {
            write!(f, "{}{key}={value:?}", if index == 0 { " (" } else { ", " })?;
        }
        if self.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_operation_value_and_source_once() {
        let error = Error::io("cannot write the record", std::io::Error::from_raw_os_error(libc::ENOSPC))
            .during("create")
            .with("volume", "a");
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(
            error.report(),
            "create: cannot write the record (volume=\"a\"): No space left on device (os error 28)"
        );
    }

    #[test]
    fn a_missing_path_does_not_mean_that_the_volume_is_gone() {
        let error = Error::io("cannot open", std::io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
