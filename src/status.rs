//! Errors to gRPC codes: the only file that names one.
//!
//! CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED mean "still running" to every orchestrator, so that a call
//! that changes something answers one of them only when that is so. RESOURCE_EXHAUSTED means the same to the attacher,
//! the resizer and the snapshotter, and "try another node" to the provisioner: it is for creating alone.

use dunnage_driver_api::{Error, ErrorKind};
use tonic::{Code, Status};

use crate::operations::{Failure, Refused};

/// The code of an error of a driver or of the host.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::OutOfRange => Code::OutOfRange,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unsupported => Code::Unimplemented,
        // Also what a later release of the contract adds: an orchestrator retries it.
        _ => Code::Internal,
    }
}

/// The answer for an error of a driver or of the host.
pub fn of_error(error: &Error) -> Status {
    Status::new(code(error.kind()), error.report())
}

/// The answer for a call that got no good one.
pub fn of_failure(failure: &Failure) -> Status {
    let code = match failure {
        Failure::Busy { .. } => Code::Aborted,
        Failure::StillRunning { .. } | Failure::Unanswered { .. } => Code::DeadlineExceeded,
        // The earlier call for this volume is what still runs.
        Failure::Refused(Refused::Volume { .. }) => Code::Aborted,
        // Nothing was started, so that none of the codes above would be true.
        Failure::Refused(_) => Code::FailedPrecondition,
        Failure::Failed(error) => code(error.kind()),
    };
    Status::new(code, failure.report())
}

/// The answer of an RPC that the plugin does not advertise.
pub fn unimplemented(rpc: &str) -> Status {
    Status::new(Code::Unimplemented, format!("{rpc} is not offered by this plugin: see its capabilities"))
}

/// The answer to a token that is none of ours (CSI: ABORTED, also where nothing runs).
pub fn bad_token(token: &str) -> Status {
    Status::new(
        Code::Aborted,
        format!("starting_token {token:?} is not one that this plugin gave: begin the list again without a token"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_the_code_that_the_spec_gives_it() {
        for (kind, code) in [
            (ErrorKind::InvalidArgument, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::OutOfRange, Code::OutOfRange),
            (ErrorKind::ResourceExhausted, Code::ResourceExhausted),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::Internal, Code::Internal),
        ] {
            assert_eq!(of_error(&Error::new(kind, "x")).code(), code);
            assert_eq!(of_failure(&Error::new(kind, "x").into()).code(), code);
        }
    }

    #[test]
    fn no_error_that_ended_looks_like_one_that_still_runs() {
        let still_running = [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::Aborted];
        for kind in [ErrorKind::Internal, ErrorKind::ResourceExhausted, ErrorKind::PermissionDenied] {
            assert!(!still_running.contains(&of_error(&Error::new(kind, "x")).code()));
        }
        let running = Failure::StillRunning { rpc: "CreateVolume", running_for: Duration::from_secs(1) };
        assert_eq!(of_failure(&running).code(), Code::DeadlineExceeded);
    }

    #[test]
    fn the_answer_holds_the_whole_chain() {
        let error = Error::internal("cannot read").caused_by(std::io::Error::other("the disk is on fire"));
        assert_eq!(of_error(&error).message(), "cannot read: the disk is on fire");
    }
}
