//! One call: what is known of it, and its end.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tracing::Span;
use tracing::field::Empty;

use super::Telemetry;
use super::code;
use super::repeats::{Key, Verdict};

/// The longest value from outside that gets into a line, in bytes: what CSI allows for ids and names.
const VALUE_LIMIT: usize = 128;

tokio::task_local! {
    /// The call that the running task answers.
    pub(super) static CURRENT: Arc<Call>;
}

/// What a handler can tell of the call it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The volume's name in the request (CreateVolume).
    VolumeName,
    /// The volume's id.
    VolumeId,
    /// The snapshot's id.
    SnapshotId,
    /// The backend that the call went to.
    Backend,
}

/// Tells the telemetry something of the call that the current task answers. It appears in every line that is logged
/// inside the call from now on, and in the call's own. Outside a call it does nothing.
///
/// Long values are cut at 128 bytes. Never give it a secret, a context or a mount flag.
pub fn record(field: Field, value: &str) {
    // Work that outlives its call has no call to tell of.
    let _ = CURRENT.try_with(|call| call.record(field, value));
}

/// A running call. Its last owner dropping it without [`finish`](Call::finish) means that the client is gone.
pub(super) struct Call {
    telemetry: Telemetry,
    plugin: Arc<str>,
    rpc: String,
    started: Instant,
    span: Span,
    /// Name or id of what the call touches; it tells repeated errors apart.
    object: Mutex<String>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("rpc", &self.rpc).finish_non_exhaustive()
    }
}

impl Call {
    /// The call of a request with this path, `/<service>/<rpc>`.
    pub(super) fn start(telemetry: &Telemetry, plugin: &Arc<str>, path: &str) -> Arc<Self> {
        let rpc = cut(path.rsplit('/').next().unwrap_or(path)).to_owned();
        let request = telemetry.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let span = tracing::info_span!(
            "call",
            request,
            plugin = &**plugin,
            rpc = &*rpc,
            volume_name = Empty,
            volume_id = Empty,
            snapshot_id = Empty,
            backend = Empty
        );
        telemetry.metrics.call_started(plugin);
        Arc::new(Self {
            telemetry: telemetry.clone(),
            plugin: plugin.clone(),
            rpc,
            started: Instant::now(),
            span,
            object: Mutex::default(),
        })
    }

    /// The span that everything inside the call is logged in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    fn record(&self, field: Field, value: &str) {
        let value = cut(value);
        match field {
            Field::VolumeName => self.span.record("volume_name", value),
            Field::VolumeId => self.span.record("volume_id", value),
            Field::SnapshotId => self.span.record("snapshot_id", value),
            Field::Backend => {
                self.span.record("backend", value);
                return;
            }
        };
        value.clone_into(&mut self.object.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Measures and logs the end of the call, once.
    fn finish(&self, status: &Status) {
        let (code, elapsed) = (status.code(), self.started.elapsed());
        // A name that no service has is the client's invention: it must not become a label.
        let label = if code == Code::Unimplemented { "other" } else { &self.rpc };
        self.telemetry.metrics.call_ended(&self.plugin, label, code, elapsed);
        let _entered = self.span.enter();
        let (name, duration_ms) = (code::name(code), milliseconds(elapsed));
        if code == Code::Ok {
            tracing::debug!(code = name, duration_ms, "done");
            return;
        }
        let key = Key {
            plugin: self.plugin.clone(),
            rpc: self.rpc.clone(),
            code,
            object: self.object.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let error = status.message();
        match self.telemetry.repeats.observe(key, error, Instant::now()) {
            Verdict::Count => tracing::debug!(code = name, duration_ms, error, "failed again"),
            Verdict::Log { repeated } if code::is_ours(code) => {
                tracing::error!(code = name, duration_ms, repeated, error, "failed");
            }
            Verdict::Log { repeated } => tracing::warn!(code = name, duration_ms, repeated, error, "failed"),
        }
    }
}

/// Sees to it that a call ends exactly once, however it ends.
#[derive(Debug)]
pub(super) struct Ending(Option<Arc<Call>>);

impl Ending {
    /// The ending of a call that has started.
    pub(super) fn new(call: Arc<Call>) -> Self {
        Self(Some(call))
    }

    /// The call has its status. Later ones do not count.
    pub(super) fn reach(&mut self, status: &Status) {
        if let Some(call) = self.0.take() {
            call.finish(status);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.reach(&Status::cancelled("the client hung up, or its deadline passed, before the answer"));
    }
}

/// The value up to the limit, at the border of a character.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_LIMIT)]
}

/// With three digits after the point: no clock says more.
fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_no_digits_that_say_nothing() {
        assert_eq!(milliseconds(Duration::from_nanos(889_014_123)).to_string(), "889.014");
    }
}
