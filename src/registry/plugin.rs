//! One CSI identity: a name, and the backends that answer to it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dunnage_driver_api::{
    BackendName, Error, ErrorKind, InstanceId, NodeName, Reach, Result, SnapshotId, SourceId, VolumeId,
};

use super::backend::{ConfiguredBackend, ServedBackend};
use super::copies;
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
    members: RwLock<Vec<Member>>,
}

/// A backend of a plugin.
#[derive(Clone)]
pub struct Member {
    /// The backend as it is configured.
    pub configured: Arc<ConfiguredBackend>,
    /// What it was when it was open last.
    pub remembered: Option<Remembered>,
    /// The instances that an admin had others take the place of, whose volumes may still be mounted here.
    pub former: Vec<InstanceId>,
    /// The backend, while its store is open.
    pub open: Option<Arc<ServedBackend>>,
}

/// What a backend was when its store was open last on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its instance.
    pub instance: InstanceId,
    /// What it offered.
    pub offers: Offers,
}

impl Member {
    fn offers(&self, mode: Mode) -> Option<Offers> {
        let open = self.open.as_ref().map(|open| Offers::of(&open.backend, mode));
        open.or(self.remembered.as_ref().map(|remembered| remembered.offers))
    }

    fn instance(&self) -> Option<&InstanceId> {
        let open = self.open.as_ref().map(|open| &open.backend.instance);
        open.or(self.remembered.as_ref().map(|remembered| &remembered.instance))
    }
}

impl Plugin {
    /// A plugin over all its backends that this node has. It advertises what those offer that are open, or are remembered;
    /// `None` where no offer is known.
    pub fn new(name: CsiName, node: NodeName, mode: Mode, members: Vec<Member>) -> Option<Self> {
        let offers = members.iter().filter_map(|member| member.offers(mode)).reduce(|all, one| all.shared_with(one))?;
        Some(Self { name, offers, node, mode, members: RwLock::new(members) })
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
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.iter_mut().find(|member| member.configured.name == backend.name) {
            member.open = Some(backend);
        }
        Ok(())
    }

    fn members(&self) -> RwLockReadGuard<'_, Vec<Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open backends in the order of their instances.
    pub fn backends(&self) -> Vec<Arc<ServedBackend>> {
        let mut open: Vec<_> = self.members().iter().filter_map(|member| member.open.clone()).collect();
        open.sort_by(|one, other| one.backend.instance.cmp(&other.backend.instance));
        open
    }

    /// The backends of this node whose store is not open now.
    pub fn absent(&self) -> Vec<BackendName> {
        let members = self.members();
        let absent = members.iter().filter(|member| member.open.is_none());
        absent.map(|member| member.configured.name.clone()).collect()
    }

    /// What sharing the name takes away from each backend.
    pub fn losses(&self) -> Vec<(BackendName, String)> {
        let loss = |member: &Member| {
            let lost: Vec<_> = member.offers(self.mode)?.lost_in(self.offers).collect();
            (!lost.is_empty()).then(|| (member.configured.name.clone(), lost.join(", ")))
        };
        self.members().iter().filter_map(loss).collect()
    }

    /// For GetPluginInfo: which backend each instance is, so that people and tools can tell whose volume an id is; under
    /// `<backend> loses` what sharing the name takes away; and under `copy <id>` how far a copy in the background is.
    pub fn manifest(&self) -> HashMap<String, String> {
        let losses = self.losses().into_iter().map(|(backend, loss)| (format!("{backend}{LOSES}"), loss));
        let members = self.members();
        let instances =
            members.iter().filter_map(|one| Some((one.instance()?.to_string(), one.configured.name.to_string())));
        let mut manifest = instances.chain(losses).collect();
        copies::tell(&self.backends(), &mut manifest);
        manifest
    }

    /// The backend whose instance a volume lives in.
    ///
    /// # Errors
    /// As [`backend_with`](Self::backend_with).
    pub fn backend_of(&self, volume: &VolumeId) -> Result<Arc<ServedBackend>> {
        self.backend_with(&volume.instance).map_err(|error| error.with("volume", volume))
    }

    /// The backend whose instance a snapshot lives in.
    ///
    /// # Errors
    /// As [`backend_with`](Self::backend_with).
    pub fn backend_of_snapshot(&self, snapshot: &SnapshotId) -> Result<Arc<ServedBackend>> {
        self.backend_with(&snapshot.instance).map_err(|error| error.with("snapshot", snapshot))
    }

    /// The backend of an instance.
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition) that says where the volume lives and what is served here:
    /// only the instance itself may say that a volume does not exist.
    pub fn backend_with(&self, instance: &InstanceId) -> Result<Arc<ServedBackend>> {
        let member = self.member_with(instance)?;
        member.open.ok_or_else(|| self.closed(&member.configured, ErrorKind::FailedPrecondition))
    }

    /// The backend whose instance a volume lives in, also while its store is not open: for what this node's own records
    /// are enough for. So also for a store that another one has taken the place of.
    ///
    /// # Errors
    /// As [`backend_with`](Self::backend_with), for an instance that no backend has or had.
    pub fn configured_of(&self, volume: &VolumeId) -> Result<Arc<ConfiguredBackend>> {
        if let Some(member) = self.members().iter().find(|member| member.former.contains(&volume.instance)) {
            return Ok(member.configured.clone());
        }
        let member = self.member_with(&volume.instance).map_err(|error| error.with("volume", volume))?;
        Ok(member.configured)
    }

    fn member_with(&self, instance: &InstanceId) -> Result<Member> {
        let members = self.members();
        if let Some(member) = members.iter().find(|member| member.instance() == Some(instance)) {
            return Ok(member.clone());
        }
        let here = members.iter().map(|member| match member.instance() {
            Some(instance) => format!("{} ({instance})", member.configured.name),
            None => format!("{} (not open)", member.configured.name),
        });
        Err(Error::precondition(format!(
            "what is asked for lives in instance {}, which {} does not serve on node {}: here are {}. Call the node that has \
             the store, or bring the store back",
            instance,
            self.name,
            self.node,
            here.collect::<Vec<_>>().join(", ")
        )))
    }

    /// The backend that is to make a volume: the one that the request names, else the one that has what the volume is to
    /// be made from, else the only one.
    ///
    /// # Errors
    /// As [`backend_named`](Self::backend_named); [`ResourceExhausted`](ErrorKind::ResourceExhausted) where what the volume
    /// is to be made from is in no store of this node, and volumes stay where they are made.
    pub fn backend_for(&self, name: Option<&BackendName>, source: Option<&SourceId>) -> Result<Arc<ServedBackend>> {
        let instance = match source {
            Some(SourceId::Snapshot(id)) => &id.instance,
            Some(SourceId::Volume(id)) => &id.instance,
            None => return self.backend_named(name),
        };
        let error = match (self.member_with(instance), name) {
            (Ok(_), Some(name)) => return self.backend_named(Some(name)),
            (Ok(member), None) => {
                return member.open.ok_or_else(|| self.closed(&member.configured, ErrorKind::ResourceExhausted));
            }
            (Err(error), _) => error,
        };
        let reaches_all = |backend: &Arc<ServedBackend>| backend.backend.reach == Reach::Everywhere;
        let elsewhere = match name {
            Some(_) => !reaches_all(&self.backend_named(name)?),
            None => !self.backends().iter().all(reaches_all),
        };
        if elsewhere {
            // No fault of the request: an orchestrator that can tries another node.
            let message = "nothing is copied from one store into another: make the volume by the backend and on the node \
                           that have its source";
            return Err(Error::new(ErrorKind::ResourceExhausted, message).caused_by(error));
        }
        self.backend_named(name)
    }

    /// The backend that a request for a new volume names, or the only one.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) with the names that are possible;
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) where its store is not open on this node: another node may
    /// have room.
    pub fn backend_named(&self, name: Option<&BackendName>) -> Result<Arc<ServedBackend>> {
        let members = self.members();
        let names = || members.iter().map(|one| one.configured.name.as_str()).collect::<Vec<_>>().join(", ");
        let member = match (name, members.as_slice()) {
            (Some(name), all) => all.iter().find(|one| one.configured.name == *name).ok_or_else(|| {
                Error::invalid(format!(
                    "parameter backend {:?} is not served by {}: here are {}",
                    name.as_str(),
                    self.name,
                    names()
                ))
            })?,
            (None, [only]) => only,
            (None, _) => {
                return Err(Error::invalid(format!(
                    "{} has several backends: name one in the parameter \"backend\": {}",
                    self.name,
                    names()
                )));
            }
        };
        member.open.clone().ok_or_else(|| self.closed(&member.configured, ErrorKind::ResourceExhausted))
    }

    fn closed(&self, backend: &ConfiguredBackend, kind: ErrorKind) -> Error {
        let message = format!(
            "the store of backend {} is not open on node {}: `dunnage check` and /healthz say why",
            backend.name, self.node
        );
        Error::new(kind, message).retry(true)
    }
}
