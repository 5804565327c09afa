//! Errors to gRPC codes: the only file that names one.
//!
//! CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED mean "still running" to every orchestrator, so that a call
//! that changes something answers one of them only when that is so. RESOURCE_EXHAUSTED means the same to the kubelet, the
//! attacher, the resizer and the snapshotter, and "try another node" to the provisioner: it is for creating alone.

use dunnage_driver_api::{Error, ErrorKind};
use tonic::{Code, Status};

use crate::operations::{Failure, Refused};

/// The RPCs that make something. CSI has RESOURCE_EXHAUSTED for them alone; and after a final error of theirs nobody asks
/// for what an earlier attempt may have made.
const MAKING: [&str; 4] = ["CreateVolume", "ControllerPublishVolume", "CreateSnapshot", "CreateVolumeGroupSnapshot"];
/// The longest message, in bytes. gRPC carries it in a header, and a client refuses headers that are too large.
const LONGEST: usize = 4 << 10;

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
        ErrorKind::Running => Code::Aborted,
        ErrorKind::Unsupported => Code::Unimplemented,
        // Also what a later release of the contract adds: an orchestrator retries it.
        _ => Code::Internal,
    }
}

/// The answer to a call that was refused before anything was done for it.
pub fn of_error(error: &Error) -> Status {
    of_failed("", error)
}

/// The answer for an error that a call of `rpc` ended with.
fn of_failed(rpc: &str, error: &Error) -> Status {
    if error.kind() == ErrorKind::ResourceExhausted && !MAKING.contains(&rpc) {
        let message = format!("{}; free some room there, then the call succeeds when it is repeated", error.report());
        return status(Code::FailedPrecondition, message);
    }
    status(code(error.kind()), error.report())
}

/// The answer to a call of `rpc` that got no good one.
pub fn of_failure(rpc: &str, failure: &Failure) -> Status {
    let code = match failure {
        Failure::Busy { .. } => Code::Aborted,
        Failure::StillRunning { .. } | Failure::Unanswered { .. } => Code::DeadlineExceeded,
        // The earlier call for this volume is what still runs.
        Failure::Refused(Refused::Lane { .. }) => Code::Aborted,
        // Nothing was started now, but an earlier call may have made it after its client had left.
        Failure::Refused(_) if MAKING.contains(&rpc) => Code::Aborted,
        // Nothing was started, so that none of the codes above would be true.
        Failure::Refused(_) => Code::FailedPrecondition,
        Failure::Failed(error) => return of_failed(rpc, error),
    };
    status(code, failure.report())
}

fn status(code: Code, mut message: String) -> Status {
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    Status::new(code, message)
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
            assert_eq!(of_failure("CreateVolume", &Error::new(kind, "x").into()).code(), code);
        }
    }

    #[test]
    fn no_error_that_ended_looks_like_one_that_still_runs() {
        let still_running = [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::Aborted];
        for kind in [ErrorKind::Internal, ErrorKind::ResourceExhausted, ErrorKind::PermissionDenied] {
            assert!(!still_running.contains(&of_error(&Error::new(kind, "x")).code()));
        }
        let running = Failure::StillRunning { rpc: "CreateVolume", running_for: Duration::from_secs(1) };
        assert_eq!(of_failure("CreateVolume", &running).code(), Code::DeadlineExceeded);
    }

    #[test]
    fn a_refused_creation_is_not_final_since_an_earlier_one_may_have_succeeded_unheard() {
        let refused = Failure::from(Refused::Stopping);
        assert_eq!(of_failure("CreateVolume", &refused).code(), Code::Aborted);
        assert_eq!(of_failure("NodePublishVolume", &refused).code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_full_disk_is_exhausted_for_creating_alone() {
        let full = Failure::from(Error::io("cannot write /state/a", std::io::Error::from_raw_os_error(libc::ENOSPC)));
        assert_eq!(of_failure("CreateVolume", &full).code(), Code::ResourceExhausted);
        assert_eq!(of_error(&Error::new(ErrorKind::ResourceExhausted, "x")).code(), Code::FailedPrecondition);
        for rpc in [
            "DeleteVolume",
            "ControllerExpandVolume",
            "GetCapacity",
            "ControllerUnpublishVolume",
            "NodeStageVolume",
            "NodeUnstageVolume",
            "NodePublishVolume",
            "NodeUnpublishVolume",
            "NodeExpandVolume",
        ] {
            let status = of_failure(rpc, &full);
            assert_eq!(status.code(), Code::FailedPrecondition, "{rpc}");
            assert!(status.message().contains("/state/a") && status.message().contains("free some room"), "{status}");
        }
    }

    #[test]
    fn a_message_is_never_too_long_for_a_header() {
        let error = Error::internal("ä".repeat(100_000));
        assert!(of_error(&error).message().len() <= LONGEST + '…'.len_utf8());
    }

    #[test]
    fn the_answer_holds_the_whole_chain() {
        let error = Error::internal("cannot read").caused_by(std::io::Error::other("the disk is on fire"));
        assert_eq!(of_error(&error).message(), "cannot read: the disk is on fire");
    }
}
