//! A kind of storage, its configuration, and what an opened backend can do.

use std::sync::Arc;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;

use crate::attach::Attach;
use crate::carry::{Carry, Carrying};
use crate::changed_blocks::ChangedBlocks;
use crate::command::{Commands, Tool};
use crate::context::Context;
use crate::controller::{Create, Expand, Groups, Health, Modify, Room, Snapshots, Volumes};
use crate::copying::Copying;
use crate::error::Result;
use crate::finding::Finding;
use crate::id::InstanceId;
use crate::key::{KeyError, read_keys};
use crate::name::{BackendName, NodeName};
use crate::node::{Mounts, NoMounts, Node, ReleaseRecord, Staging};
use crate::parameters::ParameterType;

/// A kind of storage. The type is the backend's configuration: its fields are the keys of the YAML, their doc comments
/// the documentation, and it should `deny_unknown_fields`. The host owns the keys `name`, `driver`, `csi_name`,
/// `nodes`, `workers`, `ephemeral` and `init` of every backend; they never reach the driver.
pub trait Driver: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name in `driver:`.
    const NAME: &'static str;

    /// Programs it runs; each is looked for at start and by `check`.
    const TOOLS: &'static [Tool] = &[];

    /// From where its volumes can be used. Of [`Reach::Everywhere`] each node has the node half, also those that `nodes`
    /// leaves out.
    const REACH: Reach = Reach::Node;

    /// Whether each of its volumes is a block device on the node that has the store: then it can be the `store` of a driver
    /// that [carries](Carry) such devices to other nodes.
    const CARVES: bool = false;

    /// Looks at what no later try can mend: keys that are wrong together, or on any node. The host refuses such a file,
    /// and shows its line.
    ///
    /// # Errors
    /// What is wrong, and the key.
    fn check_keys(&self) -> Result<(), KeyError> {
        Ok(())
    }

    /// Makes the empty place that is configured an instance of ours: writes its marker, durably. Safe to repeat.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where the place is missing, or not empty and not
    /// ours: nothing is changed then.
    fn init(&self, opening: &Opening) -> Result<Init>;

    /// Opens the instance and hands out what it can do. Proves first that the place is ours, by its marker.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) with the remedy where it is not; the host reports
    /// it and tries again later.
    fn open(&self, opening: &Opening) -> Result<Backend>;

    /// Looks for what could go wrong on this node with this configuration, and changes nothing.
    fn check(&self, opening: &Opening) -> Vec<Finding>;

    /// Undoes what [`Node::source`] did, from its record alone: the volume may be gone, the device dead, the store not
    /// open, since a node whose disk is lost must still be cleared. Called after the last mount of it is gone; succeeds
    /// where there is nothing left to undo. The record may be of an earlier process, never of an earlier boot. Sources
    /// without a device have nothing to do here.
    ///
    /// # Errors
    /// Where the source is still held by somebody.
    fn release(&self, _cx: &Context, _record: &ReleaseRecord) -> Result<()> {
        Ok(())
    }
}

/// Where and as what a backend is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct Opening {
    /// The backend's name in the configuration.
    pub backend: BackendName,
    /// The node this process runs on.
    pub node: NodeName,
    /// Runs programs.
    pub commands: Arc<dyn Commands>,
    /// Mounts file systems on the network.
    pub mounts: Arc<dyn Mounts>,
    /// Whether the controller half is served here: not in a process with `mode: node`, and not on a node that `nodes`
    /// leaves out. Only a driver with [`Reach::Everywhere`] is opened where it is not.
    pub store_here: bool,
    /// How many calls of the backend run at once, each on a thread of its own: one that waits leaves the others so many
    /// fewer.
    pub threads: usize,
}

impl Opening {
    /// An opening as the host makes it, and a test of a driver: both halves, nobody who mounts, and 16 threads.
    pub fn new(backend: BackendName, node: NodeName, commands: Arc<dyn Commands>) -> Self {
        Self { backend, node, commands, mounts: Arc::new(NoMounts), store_here: true, threads: 16 }
    }

    /// The same with so many threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The same with somebody who mounts.
    #[must_use]
    pub fn with_mounts(mut self, mounts: Arc<dyn Mounts>) -> Self {
        self.mounts = mounts;
        self
    }

    /// The same for the node half alone.
    #[must_use]
    pub fn of_node_half(mut self) -> Self {
        self.store_here = false;
        self
    }
}

/// What `init` found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// The place was empty and is ours now.
    Created(InstanceId),
    /// The place was ours already.
    Existing(InstanceId),
}

/// From where volumes of an instance can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// From the node that has the store alone (CSI VOLUME_ACCESSIBILITY_CONSTRAINTS).
    Node,
    /// From every node.
    Everywhere,
}

/// An opened instance and its abilities. What is not here is not advertised, and there is no other list. It stays as
/// it is while the backend is served.
#[derive(Clone)]
#[non_exhaustive]
pub struct Backend {
    /// The store, from its marker.
    pub instance: InstanceId,
    /// From where its volumes can be used.
    pub reach: Reach,
    /// Whether volumes can be raw block devices as well as file systems.
    pub block: bool,
    /// What class parameters it takes.
    pub parameters: ParameterType,
    /// Finding and listing: the controller half, where the store is.
    pub volumes: Option<Arc<dyn Volumes>>,
    /// Making and removing.
    pub create: Option<Arc<dyn Create>>,
    /// Growing.
    pub expand: Option<Arc<dyn Expand>>,
    /// Changing, and the parameters that can be changed.
    pub modify: Option<(Arc<dyn Modify>, ParameterType)>,
    /// Taking snapshots, and the parameters of their classes. [`Create`] makes volumes from them.
    pub snapshots: Option<(Arc<dyn Snapshots>, ParameterType)>,
    /// Taking snapshots of several volumes at one moment, with the parameters of [`snapshots`](Self::snapshots), which it
    /// needs.
    pub groups: Option<Arc<dyn Groups>>,
    /// Telling which bytes of a snapshot hold data, and which differ between two.
    pub changed_blocks: Option<Arc<dyn ChangedBlocks>>,
    /// Whether [`Create`] makes volumes that hold what another volume holds.
    pub clones: bool,
    /// Whether volumes come to this node and go from it while they are copied from.
    pub copies_in_use: bool,
    /// Telling of the copies that are made in the background.
    pub copying: Option<Arc<dyn Copying>>,
    /// Letting nodes use a volume, where several could reach it.
    pub attach: Option<Arc<dyn Attach>>,
    /// Telling what is wrong with a volume.
    pub health: Option<Arc<dyn Health>>,
    /// Telling what room there is.
    pub room: Option<Arc<dyn Room>>,
    /// Bringing volumes to this node.
    pub node: Option<(Arc<dyn Node>, Staging)>,
}

impl Backend {
    /// An instance that can do nothing yet.
    pub fn new(instance: InstanceId, reach: Reach, parameters: ParameterType) -> Self {
        Self {
            instance,
            reach,
            block: false,
            parameters,
            volumes: None,
            create: None,
            expand: None,
            modify: None,
            snapshots: None,
            groups: None,
            changed_blocks: None,
            clones: false,
            copies_in_use: false,
            copying: None,
            attach: None,
            health: None,
            room: None,
            node: None,
        }
    }

    /// Volumes can be found and listed. The other abilities of the controller half need this one.
    #[must_use]
    pub fn with_volumes(mut self, volumes: Arc<dyn Volumes>) -> Self {
        self.volumes = Some(volumes);
        self
    }

    /// Volumes can be raw block devices as well as file systems.
    #[must_use]
    pub fn with_block(mut self) -> Self {
        self.block = true;
        self
    }

    /// Volumes can be made and removed.
    #[must_use]
    pub fn with_create(mut self, create: Arc<dyn Create>) -> Self {
        self.create = Some(create);
        self
    }

    /// Volumes can grow.
    #[must_use]
    pub fn with_expand(mut self, expand: Arc<dyn Expand>) -> Self {
        self.expand = Some(expand);
        self
    }

    /// Volumes can be changed by these parameters.
    #[must_use]
    pub fn with_modify(mut self, modify: Arc<dyn Modify>, parameters: ParameterType) -> Self {
        self.modify = Some((modify, parameters));
        self
    }

    /// Snapshots can be taken, with these parameters, and volumes be made from them.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: Arc<dyn Snapshots>, parameters: ParameterType) -> Self {
        self.snapshots = Some((snapshots, parameters));
        self
    }

    /// Snapshots of several volumes can be taken at one moment.
    #[must_use]
    pub fn with_groups(mut self, groups: Arc<dyn Groups>) -> Self {
        self.groups = Some(groups);
        self
    }

    /// It can be told which bytes of a snapshot hold data, and which differ between two. Needs snapshots.
    #[must_use]
    pub fn with_changed_blocks(mut self, changed_blocks: Arc<dyn ChangedBlocks>) -> Self {
        self.changed_blocks = Some(changed_blocks);
        self
    }

    /// Volumes can be made that hold what another volume holds.
    #[must_use]
    pub fn with_clones(mut self) -> Self {
        self.clones = true;
        self
    }

    /// A volume may be brought to this node and taken away from it while a call cuts a snapshot of it, or makes a volume from
    /// it: the copy is of no one moment, and takes nothing from who uses the volume. For all other drivers the host lets
    /// neither begin before the other has ended.
    #[must_use]
    pub fn with_copies_in_use(mut self) -> Self {
        self.copies_in_use = true;
        self
    }

    /// Copies are made in the background, and it can be told of them.
    #[must_use]
    pub fn with_copying(mut self, copying: Arc<dyn Copying>) -> Self {
        self.copying = Some(copying);
        self
    }

    /// Volumes are used by the nodes that they are attached to, and by no others.
    #[must_use]
    pub fn with_attach(mut self, attach: Arc<dyn Attach>) -> Self {
        self.attach = Some(attach);
        self
    }

    /// It can be told what is wrong with a volume.
    #[must_use]
    pub fn with_health(mut self, health: Arc<dyn Health>) -> Self {
        self.health = Some(health);
        self
    }

    /// It can be told what room there is.
    #[must_use]
    pub fn with_room(mut self, room: Arc<dyn Room>) -> Self {
        self.room = Some(room);
        self
    }

    /// Volumes can be brought to this node.
    #[must_use]
    pub fn with_node(mut self, node: Arc<dyn Node>, staging: Staging) -> Self {
        self.node = Some((node, staging));
        self
    }
}

/// A configured backend of any driver, before it is opened.
pub trait Configured: Send + Sync {
    /// As [`Driver::init`].
    ///
    /// # Errors
    /// As [`Driver::init`].
    fn init(&self, opening: &Opening) -> Result<Init>;

    /// As [`Driver::open`].
    ///
    /// # Errors
    /// As [`Driver::open`].
    fn open(&self, opening: &Opening) -> Result<Backend>;

    /// As [`Driver::check`].
    fn check(&self, opening: &Opening) -> Vec<Finding>;

    /// As [`Driver::release`].
    ///
    /// # Errors
    /// As [`Driver::release`].
    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()>;
}

impl<D: Driver> Configured for D {
    fn init(&self, opening: &Opening) -> Result<Init> {
        Driver::init(self, opening)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        Driver::open(self, opening)
    }

    fn check(&self, opening: &Opening) -> Vec<Finding> {
        Driver::check(self, opening)
    }

    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        Driver::release(self, cx, record)
    }
}

/// What a driver is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing: it stands alone.
    Alone,
    /// It makes block devices on the node that has the store, and can be another one's store.
    Carving,
    /// It makes what a store has usable on other nodes.
    Carrying,
}

/// A driver as the host holds it: what a binary hands to `dunnage::main`.
#[derive(Clone, Copy)]
pub struct DriverEntry {
    /// The name in `driver:`.
    pub name: &'static str,
    /// Programs it runs.
    pub tools: &'static [Tool],
    /// From where its volumes can be used.
    pub reach: Reach,
    /// What it is to others.
    pub role: Role,
    /// Reads a backend's own keys, and takes its store where it has one.
    pub configure: Configure,
    /// The JSON Schema of those keys.
    pub schema: fn() -> Schema,
}

/// Reads a backend's own keys, and takes its store where it has one.
pub type Configure = fn(&serde_json::Value, Option<Arc<dyn Configured>>) -> Result<Arc<dyn Configured>, KeyError>;

impl DriverEntry {
    /// The entry of a driver.
    pub const fn of<D: Driver>() -> Self {
        Self {
            name: D::NAME,
            tools: D::TOOLS,
            reach: D::REACH,
            role: if D::CARVES { Role::Carving } else { Role::Alone },
            configure: |value, _| {
                let driver = read_keys::<D>(value)?;
                driver.check_keys()?;
                Ok(Arc::new(driver))
            },
            schema: || schemars::schema_for!(D),
        }
    }

    /// The entry of a driver that carries another one's devices.
    pub const fn carrying<D: Carry>() -> Self {
        Self {
            name: D::NAME,
            tools: D::TOOLS,
            reach: Reach::Everywhere,
            role: Role::Carrying,
            configure: |value, store| {
                let driver = read_keys::<D>(value)?;
                driver.check_keys(store.is_some())?;
                Ok(Arc::new(Carrying { driver, store }))
            },
            schema: || schemars::schema_for!(D),
        }
    }
}
