//! An opened backend with the threads its calls run on.

use std::collections::BTreeSet;

use dunnage_driver_api::{
    Access, Backend, BackendName, Bytes, Error, Node, Reach, Result, Staging, VolumeCapability, VolumeKey,
};

use crate::operations::{Key, Workers};

/// What ephemeral inline volumes a backend may be asked for. A pod's author writes their attributes, so that nothing
/// is allowed that is not named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// The class parameters that a pod may set.
    pub parameters: BTreeSet<String>,
    /// The greatest size of one volume, and the size of one that names none.
    pub max_size: Bytes,
}

/// An opened backend with the threads its calls run on.
pub struct ServedBackend {
    /// Its name in the configuration.
    pub name: BackendName,
    /// What it can do.
    pub backend: Backend,
    /// The threads that its calls run on.
    pub workers: Workers,
    /// Whether, and within what bounds, pods may have volumes made for them.
    pub ephemeral: Option<Ephemeral>,
}

impl ServedBackend {
    /// What the table of operations knows a volume of this backend by.
    pub fn key(&self, volume: &VolumeKey) -> Key {
        Key::volume(self.backend.instance.clone(), volume.clone())
    }

    /// The node half, and whether it wants staging.
    ///
    /// # Errors
    /// [`Unsupported`](dunnage_driver_api::ErrorKind::Unsupported) where the backend has none.
    pub fn node(&self) -> Result<(&dyn Node, Staging)> {
        self.backend.node.as_ref().map(|(node, staging)| (node.as_ref(), *staging)).ok_or_else(|| {
            Error::new(
                dunnage_driver_api::ErrorKind::Unsupported,
                format!("backend {} brings no volume to a node", self.name),
            )
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
}
