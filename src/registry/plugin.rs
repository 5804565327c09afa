//! One CSI identity: a name, and the backends that answer to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dunnage_driver_api::{BackendName, Error, InstanceId, NodeName, Result, VolumeId};

use super::backend::ServedBackend;
use super::offers::Offers;
use crate::config::{CsiName, Mode};

/// How a key of the manifest ends that says what a backend loses.
pub const LOSES: &str = " loses";

/// One CSI identity: a name, what it advertises, and the backends that answer to it.
pub struct Plugin {
    /// Its CSI name.
    pub name: CsiName,
    /// What it advertises for as long as its socket is there.
    pub offers: Offers,
    node: NodeName,
    mode: Mode,
    backends: RwLock<BTreeMap<InstanceId, Arc<ServedBackend>>>,
}

impl Plugin {
    /// A plugin over the backends that are open; `None` where there are none.
    pub fn new(name: CsiName, node: NodeName, mode: Mode, backends: Vec<Arc<ServedBackend>>) -> Option<Self> {
        let offers =
            backends.iter().map(|one| Offers::of(&one.backend, mode)).reduce(|all, one| all.shared_with(one))?;
        let backends = backends.into_iter().map(|one| (one.backend.instance.clone(), one)).collect();
        Some(Self { name, offers, node, mode, backends: RwLock::new(backends) })
    }

    /// Lets a backend answer that was opened after the plugin was.
    ///
    /// # Errors
    /// Where it would make the plugin advertise what is not so, or needs what the orchestrator was not told.
    pub fn join(&self, backend: Arc<ServedBackend>) -> Result<()> {
        let own = Offers::of(&backend.backend, self.mode);
        if !own.can_join(self.offers) {
            return Err(Error::precondition(format!(
                "backend {} opened after plugin {} was served without it, and differs from what that advertises (has \
                 {own}; advertised is {}): restart to serve both",
                backend.name, self.name, self.offers
            )));
        }
        let mut backends = self.backends.write().unwrap_or_else(PoisonError::into_inner);
        backends.insert(backend.backend.instance.clone(), backend);
        Ok(())
    }

    fn open(&self) -> RwLockReadGuard<'_, BTreeMap<InstanceId, Arc<ServedBackend>>> {
        self.backends.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open backends in the order of their instances.
    pub fn backends(&self) -> Vec<Arc<ServedBackend>> {
        self.open().values().cloned().collect()
    }

    /// What sharing the name takes away from each backend.
    pub fn losses(&self) -> Vec<(BackendName, String)> {
        let loss = |backend: &Arc<ServedBackend>| {
            let lost: Vec<_> = Offers::of(&backend.backend, self.mode).lost_in(self.offers).collect();
            (!lost.is_empty()).then(|| (backend.name.clone(), lost.join(", ")))
        };
        self.open().values().filter_map(loss).collect()
    }

    /// For GetPluginInfo: which backend each instance is, so that people and tools can tell whose volume an id is; and
    /// under `<backend> loses` what sharing the name takes away.
    pub fn manifest(&self) -> HashMap<String, String> {
        let losses = self.losses().into_iter().map(|(backend, loss)| (format!("{backend}{LOSES}"), loss));
        let instances = self.backends().into_iter().map(|one| (one.backend.instance.to_string(), one.name.to_string()));
        instances.chain(losses).collect()
    }

    /// The backend whose instance a volume lives in.
    ///
    /// # Errors
    /// As [`backend_with`](Self::backend_with).
    pub fn backend_of(&self, volume: &VolumeId) -> Result<Arc<ServedBackend>> {
        self.backend_with(&volume.instance).map_err(|error| error.with("volume", volume))
    }

    /// The backend of an instance.
    ///
    /// # Errors
    /// [`FailedPrecondition`](dunnage_driver_api::ErrorKind::FailedPrecondition) that says where the volume lives and
    /// what is served here: only the instance itself may say that a volume does not exist.
    pub fn backend_with(&self, instance: &InstanceId) -> Result<Arc<ServedBackend>> {
        let open = self.open();
        if let Some(backend) = open.get(instance) {
            return Ok(backend.clone());
        }
        let here: Vec<_> = open.values().map(|one| format!("{} ({})", one.name, one.backend.instance)).collect();
        Err(Error::precondition(format!(
            "the volume lives in instance {}, which {} does not serve on node {}: here are {}. Call the node that has \
             the store, or bring the store back",
            instance,
            self.name,
            self.node,
            here.join(", ")
        )))
    }

    /// The backend that a request without an id names, or the only one.
    ///
    /// # Errors
    /// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) with the names that are possible.
    pub fn backend_named(&self, name: Option<&BackendName>) -> Result<Arc<ServedBackend>> {
        let open = self.open();
        let names = || open.values().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => open.values().find(|one| one.name == *name).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "parameter backend {:?} is not served by {}: here are {}",
                    name.as_str(),
                    self.name,
                    names()
                ))
            }),
            None if open.len() == 1 => open.values().next().cloned().ok_or_else(|| Error::internal("no backend")),
            None => Err(Error::invalid(format!(
                "{} has several backends: name one in the parameter \"backend\": {}",
                self.name,
                names()
            ))),
        }
    }
}
