//! A store in memory whose calls wait at a door.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use dunnage_driver_api::{
    Attach, Attachment, Backend, Bytes, Capacity, Configured, Context, Create, CreateSnapshot, CreateVolume, Error,
    Finding, Generation, Init, InstanceId, Modify, NoParameters, NodeId, Opening, ParameterType, Parameters, Reach,
    ReleaseRecord, Result, Room, Snapshot, SnapshotKey, Snapshots, System, Volume, VolumeKey, Volumes,
};

use crate::config::{Ephemeral, Mode};
use crate::operations::{Operations, Workers, WorkersOptions};
use crate::registry::{ConfiguredBackend, Member, Plugin, ServedBackend};
use crate::service::{Environment, EphemeralMarks, Services};
use crate::telemetry::Telemetry;

/// Where calls wait while it is shut.
#[derive(Default)]
pub(super) struct Door {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    waiting: usize,
}

impl Door {
    pub(super) fn shut(&self) {
        self.state.lock().unwrap().is_shut = true;
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().is_shut = false;
        self.changed.notify_all();
    }

    /// Whether this many calls wait.
    pub(super) fn holds(&self, calls: usize) -> bool {
        self.state.lock().unwrap().waiting == calls
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        let mut state = self.changed.wait_while(state, |state| state.is_shut).unwrap();
        state.waiting -= 1;
    }
}

/// A store of volumes that no node can use.
#[derive(Default)]
struct Fake {
    door: Arc<Door>,
    volumes: Mutex<BTreeMap<VolumeKey, Volume>>,
    snapshots: Mutex<BTreeMap<SnapshotKey, Snapshot>>,
    attachments: Mutex<Vec<(VolumeKey, Attachment)>>,
    available: u64,
}

impl Volumes for Fake {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        Ok(self.volumes.lock().unwrap().get(key).cloned())
    }

    fn list(&self, _: &Context, _: Option<&VolumeKey>, _: usize) -> Result<Vec<Volume>> {
        self.door.pass();
        Ok(self.volumes.lock().unwrap().values().cloned().collect())
    }
}

impl Create for Fake {
    fn create(&self, _: &Context, request: &CreateVolume) -> Result<Volume> {
        self.door.pass();
        let mut volume = request.volume(request.capacity.choose(Bytes::new(4096), 1)?)?;
        volume.context = BTreeMap::from([("shelf".to_owned(), "7".to_owned())]);
        self.volumes.lock().unwrap().insert(volume.key.clone(), volume.clone());
        Ok(volume)
    }

    fn delete(&self, _: &Context, volume: &Volume) -> Result<()> {
        self.volumes.lock().unwrap().remove(&volume.key);
        Ok(())
    }
}

impl Snapshots for Fake {
    fn find(&self, _: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        Ok(self.snapshots.lock().unwrap().get(key).cloned())
    }

    fn list(&self, _: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        let snapshots = self.snapshots.lock().unwrap();
        let from = snapshots.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        Ok(from.map(|(_, snapshot)| snapshot.clone()).take(limit).collect())
    }

    fn create(&self, _: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        let snapshot = request.snapshot()?;
        self.snapshots.lock().unwrap().insert(snapshot.key.clone(), snapshot.clone());
        Ok(snapshot)
    }

    fn delete(&self, _: &Context, snapshot: &Snapshot) -> Result<()> {
        self.snapshots.lock().unwrap().remove(&snapshot.key);
        Ok(())
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mutable {
    #[allow(dead_code, reason = "it is read to be checked")]
    colour: String,
}

impl Modify for Fake {
    fn modify(&self, _: &Context, _: &Volume, parameters: &Parameters) -> Result<()> {
        parameters.parse::<Mutable>().map(drop)
    }
}

impl Attach for Fake {
    fn attached(&self, _: &Context, key: &VolumeKey, _: &Generation) -> Result<Vec<Attachment>> {
        let all = self.attachments.lock().unwrap();
        Ok(all.iter().filter(|(of, _)| of == key).map(|(_, attachment)| attachment.clone()).collect())
    }

    fn attach(&self, _: &Context, volume: &Volume, attachment: &Attachment) -> Result<BTreeMap<String, String>> {
        let mut all = self.attachments.lock().unwrap();
        all.retain(|(of, known)| (of, &known.node) != (&volume.key, &attachment.node));
        all.push((volume.key.clone(), attachment.clone()));
        Ok(BTreeMap::from([("shelf".to_owned(), "7".to_owned())]))
    }

    fn detach(&self, _: &Context, key: &VolumeKey, _: &Generation, node: &NodeId) -> Result<()> {
        self.attachments.lock().unwrap().retain(|(of, known)| (of, &known.node) != (key, node));
        Ok(())
    }
}

impl Room for Fake {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        self.door.pass();
        Ok(Capacity::new(Bytes::new(self.available)))
    }
}

/// What opened the store, which is open.
struct Opened;

impl Configured for Opened {
    fn init(&self, _: &Opening) -> Result<Init> {
        Err(Error::internal("it is open"))
    }

    fn open(&self, _: &Opening) -> Result<Backend> {
        Err(Error::internal("it is open"))
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        Vec::new()
    }

    fn release(&self, _: &Context, _: &ReleaseRecord) -> Result<()> {
        Ok(())
    }
}

/// A backend of one thread, whose instance is 26 times the first letter of its name, with room for `available` bytes.
pub(super) fn backend(name: &str, door: &Arc<Door>, available: u64) -> Arc<ServedBackend> {
    let instance = name[..1].repeat(26).parse().unwrap();
    let store = Arc::new(Fake { door: door.clone(), available, ..Fake::default() });
    served(name, plain(instance, store))
}

/// The same, with snapshots, clones and a parameter that can be changed.
pub(super) fn snapshotting(name: &str) -> Arc<ServedBackend> {
    let store = Arc::new(Fake { available: 1 << 30, ..Fake::default() });
    let backend = plain(name[..1].repeat(26).parse().unwrap(), store.clone())
        .with_modify(store.clone(), ParameterType::of::<Mutable>())
        .with_snapshots(store, ParameterType::of::<NoParameters>())
        .with_clones();
    served(name, backend)
}

/// One whose volumes are attached to nodes, of which each can have them.
pub(super) fn attaching(name: &str) -> Arc<ServedBackend> {
    let store = Arc::new(Fake { available: 1 << 30, ..Fake::default() });
    let mut backend = plain(name[..1].repeat(26).parse().unwrap(), store.clone()).with_attach(store).with_block();
    backend.reach = Reach::Everywhere;
    served(name, backend)
}

fn plain(instance: InstanceId, store: Arc<Fake>) -> Backend {
    Backend::new(instance, Reach::Node, ParameterType::of::<NoParameters>())
        .with_volumes(store.clone())
        .with_create(store.clone())
        .with_room(store)
}

fn served(name: &str, backend: Backend) -> Arc<ServedBackend> {
    let configured = Arc::new(ConfiguredBackend {
        name: name.parse().unwrap(),
        driver: Arc::new(Opened),
        workers: Workers::new(name.parse().unwrap(), WorkersOptions { threads: 1, ..WorkersOptions::default() }),
        ephemeral: Some(Ephemeral { max_size: Bytes::new(1 << 20), parameters: Vec::new() }),
        changed_block_size: None,
        commands: Arc::new(System),
        waits: Telemetry::new().metrics().waits(name),
    });
    Arc::new(ServedBackend { configured, backend })
}

/// The services of these backends behind one name on the node `here`, whose state lies in `folder`.
pub(super) fn services(backends: Vec<Arc<ServedBackend>>, folder: &std::path::Path) -> Services {
    let node: dunnage_driver_api::NodeName = "here".parse().unwrap();
    let member = |open: Arc<ServedBackend>| {
        let configured = open.configured.clone();
        Member { configured, remembered: None, former: Vec::new(), open: Some(open) }
    };
    let members = backends.into_iter().map(member).collect();
    let plugin = Plugin::new("x.csi.dunnage.dev".parse().unwrap(), node.clone(), Mode::All, members).unwrap();
    let environment = Environment {
        node,
        mode: Mode::All,
        operations: Operations::default(),
        engine: None,
        ephemeral: Arc::new(EphemeralMarks::open(folder).unwrap()),
    };
    Services::new(Arc::new(plugin), folder.into(), &environment)
}
