//! The way of every call: its deadline, its context, its place in the table, the threads of its backend.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::{Context, Error, Result, Secrets, Unknown, VolumeId, VolumeKey};
use tonic::{Request, Response, Status};

use super::Shared;
use crate::mount::Still;
use crate::operations::{Deadline, Keys, Lane, Request as Operation};
use crate::registry::{ConfiguredBackend, ServedBackend};
use crate::status;
use crate::telemetry::{self, Field};

/// The answer of an RPC.
pub(super) type Answer<T> = std::result::Result<Response<T>, Status>;

/// How long statistics and health are waited for, whatever the client says.
const QUICK: Duration = Duration::from_secs(2);
/// How long a change may wait for something (a device, a login, the end of a file system), where its client would leave
/// sooner: the work goes on without it, and the retry finds it done.
const WAIT: Duration = Duration::from_secs(30);

/// One call of an RPC on a backend.
#[derive(Clone)]
pub(super) struct Call {
    rpc: &'static str,
    deadline: Deadline,
    is_said: bool,
    secrets: Secrets,
}

impl Call {
    /// The call that `request` is, with the deadline its client gave.
    pub(super) fn of<T>(rpc: &'static str, request: &Request<T>) -> Self {
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        Self { rpc, deadline: Deadline::after(timeout), is_said: timeout.is_some(), secrets: Secrets::default() }
    }

    /// The same call, answered within 2 seconds: whoever asks how a volume is must not be held by a store that is dead.
    pub(super) fn quick(mut self) -> Self {
        self.deadline = self.deadline.at_most(QUICK);
        self
    }

    /// The same call for the next message of a stream. A client that gave no deadline waits for each as long as others
    /// wait for an answer.
    pub(super) fn next_page(&self) -> Self {
        let deadline = if self.is_said { self.deadline } else { Deadline::after(None) };
        Self { deadline, ..self.clone() }
    }

    /// The same call with the secrets of its request.
    pub(super) fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }
}

/// A timeout as gRPC writes it: at most 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

impl Shared {
    fn context(&self, backend: &ConfiguredBackend, call: &Call, deadline: Instant) -> Context {
        let within = deadline.saturating_duration_since(Instant::now());
        let cx = Context::new(within, backend.commands.clone()).with_secrets(call.secrets.clone());
        match &self.engine {
            Some(engine) => cx.with_still(Arc::new(Still(engine.clone()))),
            None => cx.with_still(Arc::new(Unknown)),
        }
    }

    /// Runs what changes a volume: as an operation that holds the volume and its use until it has ended, on the backend's
    /// threads. `fields` are what makes two calls the same.
    pub(super) async fn change<T: Clone + Send + Sync + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ServedBackend>,
        volume: &VolumeKey,
        fields: &impl Hash,
        work: impl FnOnce(&Self, &ServedBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let keys = Keys::of_change(backend.backend.instance.clone(), volume.clone()).into();
        self.change_all(call, backend, keys, Lane::Changes(volume.clone()), fields, work).await
    }

    /// Runs what brings a volume to this node, as [`change`](Self::change) does. The volume itself it only needs as it is.
    pub(super) async fn bring<T: Clone + Send + Sync + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ServedBackend>,
        volume: &VolumeKey,
        fields: &impl Hash,
        work: impl FnOnce(&Self, &ServedBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let keys = Keys::of_use(backend.backend.instance.clone(), volume.clone());
        self.change_all(call, backend, keys, Lane::Changes(volume.clone()), fields, work).await
    }

    /// Runs what changes something: as an operation that holds `keys` until it has ended, in the lane of what it changes.
    /// `fields` are what makes two calls the same.
    pub(super) async fn change_all<T: Clone + Send + Sync + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ServedBackend>,
        keys: Keys,
        lane: Lane,
        fields: &impl Hash,
        work: impl FnOnce(&Self, &ServedBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let configured = backend.configured.clone();
        let work = move |shared: &Self, cx: &Context| work(shared, &backend, &backend.seen(cx));
        self.change_at(call, configured, keys, lane, fields, work).await
    }

    /// Runs what takes a volume away from this node, as [`bring`](Self::bring) does, also where the store of its
    /// backend is not open: the node's own records are enough.
    pub(super) async fn take_away<T: Clone + Send + Sync + 'static>(
        self: &Arc<Self>,
        call: Call,
        volume: &VolumeId,
        fields: &impl Hash,
        work: impl FnOnce(&Self, &ConfiguredBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let backend = self.plugin.configured_of(volume).map_err(refused)?;
        let (configured, keys) = (backend.clone(), Keys::of_use(volume.instance.clone(), volume.key.clone()));
        let lane = Lane::Changes(volume.key.clone());
        self.change_at(call, configured, keys, lane, fields, move |shared, cx| work(shared, &backend, cx)).await
    }

    async fn change_at<T: Clone + Send + Sync + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ConfiguredBackend>,
        keys: Keys,
        lane: Lane,
        fields: &impl Hash,
        work: impl FnOnce(&Self, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        telemetry::record(Field::Backend, backend.name.as_str());
        let deadline = call.deadline.answer_by().max(Instant::now() + WAIT);
        let (shared, cx) = (self.clone(), self.context(&backend, &call, deadline));
        let operation = async move { backend.run(Some(lane), move || work(&shared, &cx)).await };
        self.operations
            .run(keys, Operation::of(call.rpc, fields), call.deadline, operation)
            .await
            .map_err(|failure| status::of_failure(call.rpc, &failure))
    }

    /// Runs what only reads: on the backend's threads, without the table.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ServedBackend>,
        volume: Option<&VolumeKey>,
        work: impl FnOnce(&Self, &ServedBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        self.read_in(call, backend, volume.cloned().map(Lane::Reads), work).await
    }

    /// Runs what only reads, in the lane of what it reads.
    pub(super) async fn read_in<T: Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ServedBackend>,
        lane: Option<Lane>,
        work: impl FnOnce(&Self, &ServedBackend, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let configured = backend.configured.clone();
        self.read_at(call, configured, lane, move |shared, cx| work(shared, &backend, cx)).await
    }

    /// Runs what only reads, and needs no store: as [`read`](Self::read) does.
    pub(super) async fn read_at<T: Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        backend: Arc<ConfiguredBackend>,
        lane: Option<Lane>,
        work: impl FnOnce(&Self, &Context) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        telemetry::record(Field::Backend, backend.name.as_str());
        let (shared, cx) = (self.clone(), self.context(&backend, &call, call.deadline.answer_by()));
        let reading = async move { backend.run(lane, move || work(&shared, &cx)).await };
        call.deadline.bound(call.rpc, reading).await.map_err(|failure| status::of_failure(call.rpc, &failure))
    }
}

/// The answer to a request that does not pass its checks.
pub(super) fn refused(error: Error) -> Status {
    status::of_error(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deadline_of_the_client_is_one_for_a_whole_stream() {
        let unsaid = Call::of("GetMetadataDelta", &Request::new(()));
        let mut request = Request::new(());
        request.set_timeout(Duration::from_secs(60));
        let said = Call::of("GetMetadataDelta", &request);
        assert!(unsaid.next_page().deadline.answer_by() > unsaid.deadline.answer_by());
        assert_eq!(said.next_page().deadline.answer_by(), said.deadline.answer_by());
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("15S"), Some(Duration::from_secs(15)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "1", "123456789S", "1x", "-1S", "é"] {
            assert_eq!(timeout(text), None, "{text:?}");
        }
    }
}
