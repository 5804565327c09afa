//! Why a call got no answer of its backend.

use std::time::Duration;

use dunnage_driver_api::{BackendName, Error};

use super::{Key, Lane};

/// Why a call got no good answer. Each kind means another thing to the orchestrator; `status` maps it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// Another request holds what this one touches; nothing was started (CSI: ABORTED).
    #[error(
        "{running} has been at work on {key} for {running_for:.1?}: this call was not started, repeat it when that one \
         has ended"
    )]
    Busy {
        /// What both touch.
        key: Key,
        /// The RPC that holds it.
        running: &'static str,
        /// Since how long.
        running_for: Duration,
    },
    /// The work goes on, and its caller's time is up (CSI: DEADLINE_EXCEEDED).
    #[error(
        "{rpc} has been running for {running_for:.1?}, longer than the caller waits: it goes on, and the same call \
         again waits for its answer"
    )]
    StillRunning {
        /// The RPC.
        rpc: &'static str,
        /// Since how long.
        running_for: Duration,
    },
    /// A read got no answer in time; nothing was changed (CSI: DEADLINE_EXCEEDED).
    #[error(
        "{rpc} got no answer of its backend within {waited:.1?}: the store behind it may hang, see the host's health"
    )]
    Unanswered {
        /// The RPC.
        rpc: &'static str,
        /// How long the caller waited.
        waited: Duration,
    },
    /// There was no thread for the call, or the host is stopping.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The work ended with an error.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Failure {
    /// The failure with all the errors it follows from, in one line: what an orchestrator is told.
    pub fn report(&self) -> String {
        match self {
            Self::Failed(error) => error.report(),
            other => other.to_string(),
        }
    }
}

/// Why a call, or the step of it that was to run on a backend's threads, was not started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// An earlier call for this volume or snapshot is stuck.
    #[error(
        "backend {backend}: an earlier call for {lane} has hung for {stuck_for:.1?}; nothing else is started for it \
         until it ends: see whether the store behind it answers"
    )]
    Lane {
        /// The backend.
        backend: BackendName,
        /// Whose call it is.
        lane: Lane,
        /// How long the earlier call has been running.
        stuck_for: Duration,
    },
    /// An earlier call for the store as a whole is stuck: a list, the capacity.
    #[error(
        "backend {backend}: an earlier call for the whole store has hung for {stuck_for:.1?}; no other is started until \
         it ends: see whether the store answers"
    )]
    Store {
        /// The backend.
        backend: BackendName,
        /// How long the earlier call has been running.
        stuck_for: Duration,
    },
    /// All threads that the backend may have are stuck.
    #[error(
        "backend {backend}: all {threads} threads it may have hang in calls that do not end: see whether the store \
         behind it answers"
    )]
    Backend {
        /// The backend.
        backend: BackendName,
        /// How many threads are stuck.
        threads: usize,
    },
    /// The system gives the backend no thread.
    #[error("backend {backend}: cannot start a thread: {why}; see the limits of processes and memory")]
    Thread {
        /// The backend.
        backend: BackendName,
        /// What the system said.
        why: String,
    },
    /// The host is stopping.
    #[error("the host is stopping: repeat the call when it is back")]
    Stopping,
}
