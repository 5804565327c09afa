//! One configured backend: opened as soon as it can be, then watched.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dunnage_driver_api::{Backend, BackendName, Context, Error, InstanceId, NodeName, Opening, Reach, System, Total};
use tokio::sync::watch;

use super::instances::{Instances, is_copy};
use super::memory::Memory;
use crate::config::{BackendConfig, Ephemeral, Mode};
use crate::operations::{Deadline, Failure, Workers, WorkersOptions};
use crate::registry::{ConfiguredBackend, Member, Offers, Remembered, ServedBackend};
use crate::telemetry::{Measured, Metrics};

/// How soon a backend that did not open is tried again; twice as long each time.
const SOON: Duration = Duration::from_secs(1);
/// How long it is left alone at the most.
const LATE: Duration = Duration::from_secs(60);
/// How often a backend that is open is asked whether it still answers.
const WATCH: Duration = Duration::from_secs(30);
/// How long all that is attached may take to be within reach again, once a store is open.
const RESTORE: Duration = Duration::from_secs(60);
/// How long it may take for that.
const ANSWER: Duration = Duration::from_secs(5);

/// How a configured backend is.
#[derive(Clone)]
pub(super) enum State {
    /// Its store is on other nodes.
    Elsewhere,
    /// It is not open; why, and what the admin can do.
    Closed(String),
    /// It is open; what is wrong with it now, where something is.
    Open(Arc<ServedBackend>, Option<String>),
}

/// A configured backend and how it is.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) config: BackendConfig,
    pub(super) configured: Arc<ConfiguredBackend>,
    /// What it was when this node had it open last.
    pub(super) remembered: Option<Remembered>,
    former: Vec<InstanceId>,
    state: watch::Sender<State>,
    /// Why its plugin does not let it answer although it is open: so until the process ends.
    left_out: Arc<OnceLock<String>>,
    /// What its volumes were together when it was asked last.
    total: watch::Sender<Option<Total>>,
}

impl Slot {
    pub(super) fn new(config: BackendConfig, node: &NodeName, mode: Mode, memory: &Memory, metrics: &Metrics) -> Self {
        let (remembered, former) = (memory.remembered(&config.name, mode), memory.former(&config.name));
        let (name, threads) = (config.name.clone(), config.workers);
        let options = WorkersOptions {
            threads: threads.threads.get().into(),
            total: threads.total.get().into(),
            ..WorkersOptions::default()
        };
        let configured = Arc::new(ConfiguredBackend {
            driver: config.configured.clone(),
            workers: Workers::new(name.clone(), options),
            ephemeral: config.ephemeral.clone(),
            changed_block_size: config.changed_block_size,
            commands: Arc::new(Measured::new(System, metrics.clone(), name.as_str())),
            waits: metrics.waits(name.as_str()),
            name,
        });
        let state =
            if config.is_on(node, mode) { State::Closed("it is being opened".into()) } else { State::Elsewhere };
        let left_out = Arc::default();
        let (state, total) = (watch::Sender::new(state), watch::Sender::new(None));
        Self { config, configured, remembered, former, state, left_out, total }
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// What its volumes were together when it was asked last.
    pub(super) fn total(&self) -> Option<Total> {
        *self.total.borrow()
    }

    /// The backend, where it is open.
    pub(super) fn open(&self) -> Option<Arc<ServedBackend>> {
        match self.state() {
            State::Open(backend, _) => Some(backend),
            State::Elsewhere | State::Closed(_) => None,
        }
    }

    /// Waits until the backend is open; for ever where it is elsewhere.
    pub(super) async fn opened(&self) -> Arc<ServedBackend> {
        let mut states = self.state.subscribe();
        loop {
            if let Some(backend) = self.open() {
                return backend;
            }
            // The sender is in `self`: it cannot be gone.
            let _ = states.changed().await;
        }
    }

    /// The backend as its plugin knows it.
    pub(super) fn member(&self) -> Member {
        Member {
            configured: self.configured.clone(),
            remembered: self.remembered.clone(),
            former: self.former.clone(),
            open: self.open(),
        }
    }

    /// What is wrong with it: why it is not open or does not answer, or what is wrong with it now.
    pub(super) fn adverse(&self) -> Option<String> {
        match self.state() {
            State::Elsewhere => None,
            State::Closed(message) => Some(message),
            State::Open(_, adverse) => self.left_out.get().cloned().or(adverse),
        }
    }

    /// Says that its plugin does not let it answer, which only a restart can change.
    pub(super) fn leave_out(&self, why: String) {
        tracing::error!(backend = %self.config.name, error = why, "backend is open and not served");
        // There is one plugin to say so.
        let _ = self.left_out.set(why);
    }

    /// Says what is wrong with the open backend, once for each thing.
    fn report(&self, adverse: Option<String>) {
        self.state.send_if_modified(|state| {
            let State::Open(backend, known) = state else { return false };
            if *known == adverse {
                return false;
            }
            match &adverse {
                Some(message) => tracing::error!(backend = %backend.name, error = message, "backend is not healthy"),
                None => tracing::info!(backend = %backend.name, "backend is healthy again"),
            }
            *known = adverse;
            true
        });
    }

    fn closed(&self, message: String) {
        self.state.send_if_modified(|state| {
            if matches!(state, State::Closed(known) if *known == message) {
                return false;
            }
            tracing::error!(backend = %self.config.name, error = message, "backend is not served; it is tried again");
            *state = State::Closed(message);
            true
        });
    }
}

/// Opens the backend, again and again until it opens, then asks it for ever whether it still answers.
pub(super) async fn keep_open(slot: Slot, opening: Opening, keeping: Keeping) {
    if matches!(slot.state(), State::Elsewhere) {
        return;
    }
    let mut pause = SOON;
    let backend = loop {
        match open(&slot, &opening, &keeping).await {
            Ok(backend) => break Arc::new(ServedBackend { configured: slot.configured.clone(), backend }),
            Err(failure) => slot.closed(failure.report()),
        }
        tokio::time::sleep(pause).await;
        pause = LATE.min(pause * 2);
    };
    tracing::info!(backend = %backend.name, instance = %backend.backend.instance, "backend is open");
    slot.state.send_replace(State::Open(backend.clone(), None));
    loop {
        match watch_once(&backend).await {
            Ok(total) => {
                slot.total.send_replace(total);
                slot.report(None);
            }
            Err(failure) => slot.report(Some(failure.report())),
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// What the process keeps of the backends that are open.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) mode: Mode,
    pub(super) memory: Memory,
    pub(super) instances: Instances,
    /// The names of all backends.
    pub(super) names: Arc<[BackendName]>,
}

impl Keeping {
    /// Whose store it is by what this node remembers, for a backend of which it remembers none: a copy must not win
    /// because it opened first.
    fn owner(&self, instance: &InstanceId, backend: &BackendName) -> Result<Option<&BackendName>, Error> {
        if self.memory.instance(backend)?.is_some() {
            return Ok(None);
        }
        // Of a memory that cannot be read nothing is concluded.
        let had = |name: &&BackendName| matches!(self.memory.instance(name), Ok(Some(had)) if had == *instance);
        Ok(self.names.iter().find(had))
    }
}

/// Opens the store, and proves that it is the one that this backend had before, and no other backend's.
async fn open(slot: &Slot, opening: &Opening, keeping: &Keeping) -> Result<Backend, Failure> {
    let (driver, init, opening, keeping) =
        (slot.config.configured.clone(), slot.config.init, opening.clone(), keeping.clone());
    let (ephemeral, block_size) = (slot.config.ephemeral.clone(), slot.config.changed_block_size);
    let reach = slot.config.reach;
    let work = move || {
        let name = &opening.backend;
        // An empty place where this backend had a store is not new: its disk is missing.
        // A store that others share is marked where it is served, not by whoever comes to use it.
        let init = init && (opening.store_here || reach == Reach::Node);
        if init && keeping.memory.instance(name)?.is_none() {
            driver.init(&opening)?;
        }
        let backend = driver.open(&opening)?;
        let offers = Offers::of(&backend, keeping.mode);
        if let Some(owner) = keeping.owner(&backend.instance, name)? {
            return Err(is_copy(&backend.instance, name, owner));
        }
        keeping.instances.claim(&backend.instance, name)?;
        let open = Remembered { instance: backend.instance.clone(), offers };
        keeping
            .memory
            .remember(name, keeping.mode, open)
            .inspect_err(|_| keeping.instances.give_back(&backend.instance))?;
        if let Some(attach) = &backend.attach {
            attach.restore(&Context::new(RESTORE, opening.commands.clone()))?;
        }
        check_ephemeral(ephemeral.as_ref(), name, &backend);
        if block_size.is_some() && backend.changed_blocks.is_none() {
            tracing::warn!(backend = %name, "changed_block_size is of no use: this store tells of no changed blocks");
        }
        Ok(backend)
    };
    slot.configured.run(None, work).await
}

/// Tells of names that pods may set and the driver does not know: they are told at each pod only otherwise.
fn check_ephemeral(ephemeral: Option<&Ephemeral>, name: &BackendName, backend: &Backend) {
    for parameter in ephemeral.iter().flat_map(|ephemeral| &ephemeral.parameters) {
        if !backend.parameters.has(parameter) {
            tracing::warn!(backend = %name, parameter, "ephemeral.parameters allows a class parameter that is not known");
        }
    }
}

/// Probes the store of an open backend, and asks it what its volumes are together.
async fn watch_once(backend: &Arc<ServedBackend>) -> Result<Option<Total>, Failure> {
    let served = backend.clone();
    let cx = Context::new(ANSWER, backend.commands.clone());
    let read = move || match &served.backend.volumes {
        Some(volumes) => {
            volumes.probe(&cx)?;
            volumes.total(&cx)
        }
        None => Ok(None),
    };
    Deadline::after(Some(ANSWER)).bound("the watch", backend.workers.run(None, read)).await
}
