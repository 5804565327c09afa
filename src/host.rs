//! The process: everything that a configuration asks for, started, watched and ended.
//!
//! Each backend is opened by a task of its own, which tries again for as long as it fails and then watches it. Each
//! plugin has another, which waits for its backends and then serves its socket. So a backend that does not open, or
//! dies later, is reported, and the others run; and so is an address of metrics and health that is taken.

mod alone;
mod backend;
mod gauges;
mod health;
mod heap;
mod instances;
mod memory;
mod opening;
mod orphans;
mod plugin;
mod privileges;
mod status;

use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{BackendConfig, Config, Mode};
use crate::mount::{Engine, EngineOptions};
use crate::operations::{Operations, Running};
use crate::server::StateLock;
use crate::service::{Environment, EphemeralMarks};
use crate::telemetry::Telemetry;
use backend::{Keeping, Slot};
pub use heap::keep_heap_small;
use instances::Instances;
pub use memory::Memory;
pub use privileges::{drop_privileges, may_mount};
pub use status::Status;

/// How long the answers of what has ended may be on their way when the host stops.
const ANSWERS: Duration = Duration::from_secs(2);

/// The runtime that a host runs in: two threads that only move messages, since whatever may block runs on the threads
/// of a backend.
///
/// # Errors
/// Where the system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("host").enable_all().build()
}

/// A running host. It ends by [`stop`](Host::stop); dropping it cuts off what runs.
pub struct Host {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// One for each plugin, which ends by itself once its last answer is on its way.
    serving: JoinSet<()>,
    operations: Operations,
    drain: Duration,
    status: Arc<Status>,
    _lock: StateLock,
}

impl Host {
    /// Starts what the configuration asks for: returns once everything is on its way, not yet open.
    ///
    /// # Errors
    /// Where the state folder is another host's or this kernel is too old for the mount engine. A backend, a socket or
    /// the address of the telemetry that does not come up is no error: it is tried again.
    pub async fn start(config: Config, telemetry: Telemetry, options: EngineOptions) -> Result<Self> {
        let lock = StateLock::take(&config.state)?;
        let engine = match config.mode {
            Mode::Controller => None,
            Mode::All | Mode::Node => Some(Arc::new(Engine::open(&config.state, options)?)),
        };
        let operations = Operations::default();
        let environment = Environment {
            node: config.node.clone(),
            mode: config.mode,
            operations: operations.clone(),
            engine,
            ephemeral: Arc::new(EphemeralMarks::open(&config.state)?),
        };
        let memory = Memory::new(&config.state);
        if let Some(engine) = &environment.engine
            && let Err(error) = orphans::warn(&config, engine, &memory)
        {
            tracing::warn!(error = error.report(), "cannot tell whether volumes of other backends are mounted here");
        }
        let slot =
            |one: &BackendConfig| Slot::new(one.clone(), &config.node, config.mode, &memory, telemetry.metrics());
        let slots: Vec<_> = config.backends.iter().map(slot).collect();
        if !config.backends.iter().any(|backend| backend.is_on(&config.node, config.mode)) {
            tracing::warn!(node = %config.node, "no backend is on this node, so nothing is served: see `nodes` and `node`");
        }
        let status = Arc::new(Status::new(&slots, &config.plugins));
        gauges::register(telemetry.metrics(), &operations, &slots);
        let (stop, stopping) = watch::channel(false);
        let (mut tasks, mut serving) = (JoinSet::new(), JoinSet::new());
        if let Some(address) = config.telemetry {
            let serving = health::serve(address, telemetry.metrics().clone(), status.clone());
            tasks.spawn(async move { match serving.await {} });
        }
        let repeats = telemetry.clone();
        tasks.spawn(async move { repeats.log_repeats().await });
        let names = config.backends.iter().map(|backend| backend.name.clone()).collect();
        let keeping = Keeping { mode: config.mode, memory, instances: Instances::default(), names };
        for slot in &slots {
            let commands = slot.configured.commands.clone();
            let opening = slot.config.opening(&config.node, config.mode, commands);
            tasks.spawn(backend::keep_open(slot.clone(), opening, keeping.clone()));
        }
        for (index, plugin) in config.plugins.iter().enumerate() {
            let slots = plugin.backends.iter().filter_map(|index| slots.get(*index).cloned()).collect();
            let plugin = plugin::Serving {
                name: plugin.csi_name.clone(),
                socket: plugin.socket.clone(),
                slots,
                environment: environment.clone(),
                telemetry: telemetry.clone(),
                status: status.clone(),
                index,
                stopping: stopping.clone(),
                drain: config.drain,
            };
            serving.spawn(plugin.run());
        }
        Ok(Self { stop, tasks, serving, operations, drain: config.drain, status, _lock: lock })
    }

    /// What is up and what is not.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Stops: accepts nothing new, gives what runs the configured time to end, and leaves every mount alone. Answers
    /// what was still running then.
    pub async fn stop(mut self) -> Vec<Running> {
        self.stop.send_replace(true);
        let running = self.operations.drain(self.drain).await;
        // What has ended is answered yet; a read that hangs is not waited for.
        let answers = async { while self.serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ANSWERS.min(self.drain), answers).await;
        self.serving.abort_all();
        while self.serving.join_next().await.is_some() {}
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        running
    }
}
