//! A backend with the threads its calls run on, before and after its store is open.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use dunnage_driver_api::{
    Access, Backend, BackendName, Commands, Configured, Context, Error, ErrorKind, Health, HealthFinding, HealthStatus,
    Parameters, Reach, ReleaseRecord, Result, Staging, Volume, VolumeCapability, VolumeId, VolumeKey, Volumes,
};

use crate::config::{BlockSize, Ephemeral};
use crate::mount::NodeHalf;
use crate::operations::{Failure, Key, Lane, Workers};
use crate::telemetry::Waits;

/// A backend as it is configured, whether its store is open or not: what its calls run on, and with what.
pub struct ConfiguredBackend {
    /// Its name in the configuration.
    pub name: BackendName,
    /// Its driver with its configuration.
    pub driver: Arc<dyn Configured>,
    /// The threads that its calls run on.
    pub workers: Workers,
    /// Whether, and within what bounds, pods may have volumes made for them.
    pub ephemeral: Option<Ephemeral>,
    /// The size of the blocks that changed blocks are told in, where it is one.
    pub changed_block_size: Option<BlockSize>,
    /// Runs programs for it.
    pub commands: Arc<dyn Commands>,
    /// How long its calls waited.
    pub waits: Waits,
}

impl ConfiguredBackend {
    /// Runs `work` on the threads of this backend, as [`Workers::run`] does, and counts how long it waited for that.
    ///
    /// # Errors
    /// As [`Workers::run`].
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Option<Lane>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (waits, asked) = (self.waits.clone(), Instant::now());
        let measured = move || {
            waits.ended(asked.elapsed());
            work()
        };
        self.workers.run(lane, measured).await
    }

    /// Undoes a source of this backend, from its record alone.
    ///
    /// # Errors
    /// As [`Driver::release`](dunnage_driver_api::Driver::release).
    pub fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        self.driver.release(cx, record)
    }
}

/// A configured backend whose store is open.
pub struct ServedBackend {
    /// The backend as it is configured.
    pub configured: Arc<ConfiguredBackend>,
    /// What it can do.
    pub backend: Backend,
}

impl Deref for ServedBackend {
    type Target = ConfiguredBackend;

    fn deref(&self) -> &ConfiguredBackend {
        &self.configured
    }
}

impl ServedBackend {
    /// What the table of operations knows a volume of this backend by.
    pub fn key(&self, volume: &VolumeKey) -> Key {
        Key::volume(self.backend.instance.clone(), volume.clone())
    }

    /// The id of one of its volumes.
    pub fn id(&self, volume: &Volume) -> VolumeId {
        VolumeId {
            instance: self.backend.instance.clone(),
            key: volume.key.clone(),
            generation: volume.generation.clone(),
        }
    }

    /// The controller half's reading.
    ///
    /// # Errors
    /// [`Unsupported`](dunnage_driver_api::ErrorKind::Unsupported) where the store is not on this node.
    pub fn volumes(&self) -> Result<&dyn Volumes> {
        self.backend.volumes.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("the store of backend {} is not on this node", self.name))
        })
    }

    /// What the store knows of the health of its volumes.
    ///
    /// # Errors
    /// [`Unsupported`](dunnage_driver_api::ErrorKind::Unsupported) where it tells nothing.
    pub fn health(&self) -> Result<&dyn Health> {
        self.backend.health.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("backend {} tells nothing of its volumes' health", self.name))
        })
    }

    /// What is wrong with a volume. That it cannot be told is a finding too: one volume must not hide the others.
    ///
    /// # Errors
    /// As [`health`](Self::health).
    pub fn health_of(&self, cx: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        Ok(self.health()?.health(cx, volume).unwrap_or_else(|error| {
            vec![HealthFinding::new(HealthStatus::Inaccessible, "HealthUnknown", error.report())]
        }))
    }

    /// The node half, and whether it wants staging.
    ///
    /// # Errors
    /// [`Unsupported`](dunnage_driver_api::ErrorKind::Unsupported) where the backend has none.
    pub fn node(&self) -> Result<(NodeHalf<'_>, Staging)> {
        let half = |node| NodeHalf { node, reach: self.backend.reach };
        self.backend.node.as_ref().map(|(node, staging)| (half(node.as_ref()), *staging)).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("backend {} brings no volume to a node", self.name))
        })
    }

    /// Whether a volume of this backend can be used so; the reason where it cannot.
    ///
    /// # Errors
    /// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) with what would be possible.
    pub fn supports(&self, capability: &VolumeCapability) -> Result<()> {
        if capability.access == Access::Block && !self.backend.block {
            return Err(Error::invalid(format!(
                "backend {} has no raw block volumes: ask for mount access",
                self.name
            )));
        }
        if self.backend.reach == Reach::Node && !capability.mode.is_single_node() {
            return Err(Error::invalid(format!(
                "access mode {} is not possible: volumes of backend {} are on one node alone; use a SINGLE_NODE mode",
                capability.mode, self.name
            )));
        }
        let is_device = matches!(self.backend.node, Some((_, Staging::Needed)));
        if is_device && capability.access != Access::Block && !capability.mode.is_single_node() {
            return Err(Error::invalid(format!(
                "access mode {} is not possible with mount access: a volume of backend {} is a block device, whose file \
                 system several nodes would destroy; use a SINGLE_NODE mode, or block access",
                capability.mode, self.name
            )));
        }
        if let Access::Mount(mount) = &capability.access
            && mount.volume_mount_group.is_some()
        {
            return Err(Error::invalid(
                "volume_mount_group is not supported: the file systems here have no such option, and the plugin does \
                 not advertise VOLUME_MOUNT_GROUP",
            ));
        }
        Ok(())
    }

    /// As [`supports`](Self::supports), for a node that is asked to use a volume so.
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition), the code of CSI for a capability that exceeds a volume's.
    pub fn supports_on_node(&self, capability: &VolumeCapability) -> Result<()> {
        self.supports(capability)
            .map_err(|error| Error::precondition("the volume cannot be used as this capability says").caused_by(error))
    }

    /// Whether volumes of these parameters, to be used so, can be made here at all.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) with what would be possible.
    pub fn fits(&self, capabilities: &[VolumeCapability], parameters: &Parameters) -> Result<()> {
        capabilities.iter().try_for_each(|capability| self.supports(capability))?;
        self.backend.parameters.check(parameters).map_err(|error| {
            // What other plugins take: the same wish under a name that is not the orchestrator's.
            let fs_type = parameters.pairs().keys().find(|name| name.eq_ignore_ascii_case("fstype"));
            match fs_type {
                Some(name) => Error::invalid(format!(
                    "backend {} takes no class parameter {name:?}: the file system is csi.storage.k8s.io/fstype",
                    self.name
                )),
                None => error.with("backend", &self.name),
            }
        })
    }
    /// Whether these parameters can be changed to these values.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) with what would be possible.
    pub fn fits_mutable(&self, parameters: &Parameters) -> Result<()> {
        match &self.backend.modify {
            _ if parameters.pairs().is_empty() => Ok(()),
            Some((_, mutable)) => mutable.check(parameters).map_err(|error| error.with("backend", &self.name)),
            None => Err(Error::invalid(format!(
                "backend {} has no mutable_parameters: it does not offer MODIFY_VOLUME",
                self.name
            ))),
        }
    }
}
