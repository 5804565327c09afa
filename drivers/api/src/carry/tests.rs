//! Exports of a store in memory, by a target that only remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Export, ExportId, Exports, Target};
use crate::attach::{Attach, Attachment};
use crate::capability::{Access, AccessMode, VolumeCapability};
use crate::capacity::{Bytes, CapacityRange};
use crate::command::System;
use crate::context::Context;
use crate::controller::{Create, Expand, Volumes};
use crate::driver::{Backend, Configured, Init, Opening, Reach};
use crate::error::{Error, ErrorKind, Result};
use crate::finding::Finding;
use crate::id::{Generation, InstanceId, NodeId, VolumeKey};
use crate::node::{DeviceSource, Identity, Node, ReleaseRecord, Source, SourceRequest, Staging};
use crate::parameters::{NoParameters, ParameterType, Parameters};
use crate::still::InUse;
use crate::volume::{CreateVolume, Expanded, Volume};

/// A store whose devices are a file, and which of them are there.
struct Store {
    instance: InstanceId,
    file: PathBuf,
    state: Mutex<State>,
    /// Whether its devices are held by somebody.
    is_busy: AtomicBool,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<VolumeKey, Volume>,
    devices: BTreeSet<String>,
    refreshed: usize,
    /// Whether the last device was asked for with a record of an earlier call.
    kept: bool,
}

/// The store as the host holds it.
struct Configuration(Arc<Store>);

impl Configured for Configuration {
    fn init(&self, _: &Opening) -> Result<Init> {
        Ok(Init::Existing(self.0.instance.clone()))
    }

    fn open(&self, _: &Opening) -> Result<Backend> {
        let store = self.0.clone();
        let parameters = ParameterType::of::<NoParameters>();
        let backend = Backend::new(store.instance.clone(), Reach::Node, parameters).with_volumes(store.clone());
        Ok(backend.with_create(store.clone()).with_expand(store.clone()).with_node(store, Staging::Needed))
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        let clash = Finding::error("copied", "serve one");
        vec![Finding::ok("is there").claiming(format!("instance {}", self.0.instance), clash)]
    }

    fn release(&self, _: &Context, record: &ReleaseRecord) -> Result<()> {
        if self.0.is_busy.load(Ordering::Relaxed) {
            return Err(Error::precondition("the device is held"));
        }
        self.0.state.lock().unwrap().devices.remove(&record.read::<String>()?);
        Ok(())
    }
}

impl Volumes for Store {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        Ok(self.state.lock().unwrap().volumes.get(key).cloned())
    }

    fn list(&self, _: &Context, _: Option<&VolumeKey>, _: usize) -> Result<Vec<Volume>> {
        Ok(self.state.lock().unwrap().volumes.values().cloned().collect())
    }
}

impl Create for Store {
    fn create(&self, _: &Context, request: &CreateVolume) -> Result<Volume> {
        let volume = request.volume(Bytes::new(4096))?;
        self.state.lock().unwrap().volumes.insert(volume.key.clone(), volume.clone());
        Ok(volume)
    }

    fn delete(&self, _: &Context, volume: &Volume) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        assert!(!state.devices.contains(volume.key.as_str()), "it has a device");
        state.volumes.remove(&volume.key);
        Ok(())
    }
}

impl Expand for Store {
    fn expand(&self, _: &Context, _: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        Ok(Expanded::to(capacity.required()).after_node_expansion())
    }
}

impl Node for Store {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let release = ReleaseRecord::new(&request.volume.key.as_str())?;
        (request.keep)(&release)?;
        let mut state = self.state.lock().unwrap();
        state.devices.insert(request.volume.key.to_string());
        state.kept = request.kept.is_some();
        let device = File::open(&self.file).unwrap();
        Ok(Source::Device(DeviceSource::new(device, self.file.clone(), Identity("x".into()), release)))
    }

    fn refresh(&self, _: &Context, _: &ReleaseRecord) -> Result<()> {
        self.state.lock().unwrap().refreshed += 1;
        Ok(())
    }
}

/// What the kernel has: it outlives a process.
#[derive(Clone, Default)]
struct Kernel {
    exports: Arc<Mutex<BTreeMap<ExportId, NodeId>>>,
    grown: Arc<Mutex<Vec<ExportId>>>,
    fails: Arc<AtomicBool>,
    /// The volume of which it cannot tell whether it is exported.
    silent: Arc<Mutex<Option<VolumeKey>>>,
    is_restored: Arc<AtomicBool>,
}

impl Kernel {
    fn check(&self) -> Result<()> {
        if self.fails.load(Ordering::Relaxed) { Err(Error::internal("the kernel says no")) } else { Ok(()) }
    }

    fn nodes(&self) -> Vec<String> {
        self.exports.lock().unwrap().values().map(|node| node.as_str().split('.').next().unwrap().to_owned()).collect()
    }
}

impl Target for Kernel {
    type Grant = String;

    fn grant(&self, cx: &Context, _: &Attachment) -> Result<String> {
        Ok(cx.secrets.get("word").unwrap_or_default().to_owned())
    }

    fn export(&self, _: &Context, export: &Export<'_, String>) -> Result<()> {
        self.check()?;
        self.exports.lock().unwrap().insert(export.id.clone(), export.attachment.node.clone());
        Ok(())
    }

    fn withdraw(&self, _: &Context, id: &ExportId) -> Result<()> {
        self.check()?;
        self.exports.lock().unwrap().remove(id);
        Ok(())
    }

    fn grown(&self, _: &Context, id: &ExportId) -> Result<()> {
        self.grown.lock().unwrap().push(id.clone());
        Ok(())
    }

    fn restored(&self, _: &Context) -> Result<()> {
        self.is_restored.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn stands(&self, id: &ExportId) -> Result<bool> {
        if self.silent.lock().unwrap().as_ref() == Some(&id.volume.key) {
            return Err(Error::internal("the kernel says nothing"));
        }
        Ok(self.exports.lock().unwrap().contains_key(id))
    }

    fn exported(&self, instance: &InstanceId) -> Result<Vec<ExportId>> {
        Ok(self.exports.lock().unwrap().keys().filter(|id| id.volume.instance == *instance).cloned().collect())
    }

    fn context(&self, id: &ExportId, _: &String) -> BTreeMap<String, String> {
        BTreeMap::from([("export".to_owned(), id.to_string())])
    }
}

struct Rig {
    store: Arc<Store>,
    kernel: Kernel,
    exports: Option<Arc<Exports<Kernel>>>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device");
        File::create(&file).unwrap();
        std::fs::create_dir(folder.path().join("grants")).unwrap();
        let instance = InstanceId::random().unwrap();
        let store = Store { instance, file, state: Mutex::default(), is_busy: AtomicBool::new(false) };
        let mut rig = Self { store: Arc::new(store), kernel: Kernel::default(), exports: None, folder };
        Exports::<Kernel>::init(&rig.configured(), &opening(), &rig.grants(), "test").unwrap();
        rig.restart();
        rig
    }

    fn configured(&self) -> Arc<dyn Configured> {
        Arc::new(Configuration(self.store.clone()))
    }

    fn grants(&self) -> PathBuf {
        self.folder.path().join("grants")
    }

    fn open(&self) -> Result<Arc<Exports<Kernel>>> {
        Exports::open(&self.configured(), &opening(), &self.grants(), "test", self.kernel.clone())
    }

    /// The process is killed and started again.
    fn restart(&mut self) {
        self.exports = None;
        self.exports = Some(self.open().unwrap());
        self.exports().restore(&cx()).unwrap();
    }

    fn exports(&self) -> &Arc<Exports<Kernel>> {
        self.exports.as_ref().unwrap()
    }

    fn volume(&self, name: &str) -> Volume {
        let fingerprint = crate::id::Fingerprint::of(&BTreeMap::new());
        let request = CreateVolume::new(name, CapacityRange::default(), Vec::new(), Parameters::default(), fingerprint);
        Create::create(&**self.exports(), &cx(), &request).unwrap()
    }

    fn attach(&self, volume: &Volume, attachment: &Attachment) -> Result<BTreeMap<String, String>> {
        self.exports().attach(&cx(), volume, attachment)
    }

    fn detach(&self, volume: &Volume, node: &NodeId) -> Result<()> {
        self.exports().detach(&cx(), &volume.key, &volume.generation, node)
    }

    fn attached(&self, volume: &Volume) -> usize {
        self.exports().attached(&cx(), &volume.key, &volume.generation).unwrap().len()
    }

    fn has_device(&self, volume: &Volume) -> bool {
        self.store.state.lock().unwrap().devices.contains(volume.key.as_str())
    }
}

fn opening() -> Opening {
    Opening::new("b".parse().unwrap(), "n".parse().unwrap(), Arc::new(System))
}

fn cx() -> Context {
    Context::new(Duration::from_secs(30), Arc::new(System))
}

fn node(name: &str) -> NodeId {
    NodeId::of(&name.parse().unwrap())
}

fn to(name: &str) -> Attachment {
    let capability = VolumeCapability { access: Access::Block, mode: AccessMode::MultiNodeMultiWriter };
    Attachment::new(node(name), &capability, false).unwrap()
}

#[test]
fn a_volume_is_exported_to_the_nodes_it_is_attached_to_and_its_device_is_there_as_long() {
    let rig = Rig::new();
    let volume = rig.volume("v");
    let (one, two) = (to("one"), to("two"));
    let context = rig.attach(&volume, &one).unwrap();
    assert_eq!(rig.attach(&volume, &one).unwrap(), context);
    rig.attach(&volume, &two).unwrap();
    assert_eq!((rig.attached(&volume), rig.kernel.exports.lock().unwrap().len()), (2, 2));
    for _ in 0..2 {
        rig.detach(&volume, &one.node).unwrap();
        assert_eq!(rig.kernel.nodes(), ["two"]);
    }
    let refused = rig.exports().delete(&cx(), &volume).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(rig.has_device(&volume));
    rig.detach(&volume, &two.node).unwrap();
    assert!(rig.kernel.nodes().is_empty() && !rig.has_device(&volume) && rig.attached(&volume) == 0);
    rig.exports().delete(&cx(), &volume).unwrap();
    rig.detach(&volume, &two.node).unwrap();
}

#[test]
fn grants_come_back_with_the_node_and_exports_that_nobody_was_granted_go() {
    let mut rig = Rig::new();
    let (kept, deleted, ended) = (rig.volume("kept"), rig.volume("deleted"), rig.volume("ended"));
    for volume in [&kept, &deleted, &ended] {
        rig.attach(volume, &to("one")).unwrap();
    }
    // The store was put back as it was before: one volume is another one now.
    rig.store.state.lock().unwrap().volumes.remove(&deleted.key);
    rig.store.state.lock().unwrap().volumes.get_mut(&ended.key).unwrap().generation = Generation::random().unwrap();
    let foreign = ExportId { volume: rig.exports().volume_id(&kept), word: Generation::random().unwrap() };
    rig.kernel.exports.lock().unwrap().insert(foreign.clone(), node("two"));
    rig.restart();
    assert_eq!(rig.kernel.nodes(), ["one"]);
    assert_eq!((rig.attached(&kept), rig.attached(&deleted), rig.attached(&ended)), (1, 0, 0));
    // The power failed: the kernel has nothing any more.
    rig.kernel.exports.lock().unwrap().clear();
    rig.restart();
    assert_eq!(rig.kernel.nodes(), ["one"]);
}

/// What this release writes, and each later one reads.
const RECORD: &str = r#"{
  "version": 1,
  "volume": {
    "key": "v", "name": "v", "generation": "GENERATION", "capacity": 4096,
    "fingerprint": "4oymiquy7qobjgx36tejs35zeq", "created": 1764000000
  },
  "extra": {
    "grants": [{
      "attachment": {
        "node": "NODE", "word": "aaaaaaaaaaaaa", "block": true, "mode": "MultiNodeMultiWriter", "readonly": false
      },
      "own": "kept"
    }],
    "carved": {"boot": "another", "release": "v"}
  }
}"#;

#[test]
fn the_form_of_a_grant_is_frozen() {
    let mut rig = Rig::new();
    let volume = rig.volume("v");
    rig.exports = None;
    let one = node("one");
    let text = RECORD.replace("GENERATION", volume.generation.as_str()).replace("NODE", one.as_str());
    let record = rig.grants().join(".dunnage/volumes/v");
    std::fs::write(&record, &text).unwrap();
    rig.restart();
    let attached = rig.exports().attached(&cx(), &volume.key, &volume.generation).unwrap();
    let mut wanted = to("one");
    wanted.word = "aaaaaaaaaaaaa".parse().unwrap();
    assert_eq!(attached, [wanted]);
    let names = |text: &str| -> BTreeSet<String> {
        text.split('"')
            .skip(1)
            .step_by(2)
            .filter(|name| name.chars().all(char::is_lowercase))
            .map(str::to_owned)
            .collect()
    };
    let written = std::fs::read_to_string(&record).unwrap();
    for name in
        ["version", "volume", "extra", "grants", "attachment", "node", "word", "block", "mode", "readonly", "own"]
    {
        assert!(names(&written).contains(name) && names(&text).contains(name), "{name} in {written}");
    }
}

#[test]
fn what_a_store_has_to_undo_ends_with_the_boot() {
    let mut rig = Rig::new();
    let volume = rig.volume("v");
    rig.attach(&volume, &to("one")).unwrap();
    rig.restart();
    assert!(rig.store.state.lock().unwrap().kept, "the same boot");
    let record = rig.grants().join(".dunnage/volumes/v");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace(&crate::boot::boot_id().unwrap(), "another")).unwrap();
    rig.store.state.lock().unwrap().devices.clear();
    rig.kernel.exports.lock().unwrap().clear();
    rig.restart();
    assert!(!rig.store.state.lock().unwrap().kept, "a number may be another device's now");
    assert!(rig.has_device(&volume) && rig.kernel.nodes() == ["one"]);
    rig.detach(&volume, &node("one")).unwrap();
    assert!(!rig.has_device(&volume));
}

#[test]
fn nothing_that_is_exported_changes_until_the_host_knows_whose_store_it_is() {
    let mut rig = Rig::new();
    let volume = rig.volume("v");
    rig.attach(&volume, &to("one")).unwrap();
    // A copy of the store, with grants of its own.
    std::fs::create_dir(rig.folder.path().join("fresh")).unwrap();
    let copy = rig.folder.path().join("fresh");
    Exports::<Kernel>::init(&rig.configured(), &opening(), &copy, "test").unwrap();
    let copy = Exports::open(&rig.configured(), &opening(), &copy, "test", rig.kernel.clone()).unwrap();
    assert_eq!(rig.kernel.nodes(), ["one"]);
    copy.restore(&cx()).unwrap();
    assert!(rig.kernel.nodes().is_empty());
    rig.restart();
    assert_eq!(rig.kernel.nodes(), ["one"]);
}

#[test]
fn what_is_exported_and_was_granted_to_nobody_is_ended_also_later() {
    let rig = Rig::new();
    let (volume, other) = (rig.volume("v"), rig.volume("w"));
    rig.attach(&volume, &to("one")).unwrap();
    let foreign = ExportId { volume: rig.exports().volume_id(&other), word: Generation::random().unwrap() };
    rig.kernel.exports.lock().unwrap().insert(foreign, node("two"));
    rig.kernel.fails.store(true, Ordering::Relaxed);
    rig.exports().restore(&cx()).unwrap_err();
    assert!(rig.exports().probe(&cx()).unwrap_err().report().contains("nobody was granted"));
    rig.kernel.fails.store(false, Ordering::Relaxed);
    rig.exports().probe(&cx()).unwrap();
    assert_eq!(rig.kernel.nodes(), ["one"]);
}

#[test]
fn what_could_not_be_exported_is_tried_again_and_told_until_then() {
    let mut rig = Rig::new();
    let volume = rig.volume("v");
    rig.kernel.fails.store(true, Ordering::Relaxed);
    rig.attach(&volume, &to("one")).unwrap_err();
    rig.restart();
    let told = rig.exports().probe(&cx()).unwrap_err();
    assert!(told.report().contains("the kernel says no"), "{}", told.report());
    rig.kernel.fails.store(false, Ordering::Relaxed);
    rig.exports().probe(&cx()).unwrap();
    assert_eq!(rig.kernel.nodes(), ["one"]);
}

#[test]
fn a_volume_that_is_slow_or_broken_keeps_no_other_away() {
    let mut rig = Rig::new();
    let (broken, whole) = (rig.volume("a"), rig.volume("b"));
    rig.attach(&broken, &to("one")).unwrap();
    rig.attach(&whole, &to("two")).unwrap();
    rig.kernel.exports.lock().unwrap().clear();
    rig.exports = None;
    rig.exports = Some(rig.open().unwrap());
    rig.kernel.is_restored.store(false, Ordering::Relaxed);
    // All the time has gone to another one.
    rig.exports().restore(&Context::new(Duration::ZERO, Arc::new(System))).unwrap();
    assert!(rig.kernel.is_restored.load(Ordering::Relaxed) && rig.kernel.nodes().is_empty());
    *rig.kernel.silent.lock().unwrap() = Some(broken.key.clone());
    assert!(rig.exports().probe(&cx()).unwrap_err().report().contains("says nothing"));
    assert_eq!(rig.kernel.nodes(), ["two"]);
    *rig.kernel.silent.lock().unwrap() = None;
    rig.exports().probe(&cx()).unwrap();
    assert_eq!(rig.kernel.nodes().len(), 2);
}

#[test]
fn a_call_waits_for_another_one_of_its_volume_no_longer_than_it_has() {
    let rig = Rig::new();
    let volume = rig.volume("v");
    let _held = rig.exports().grants.hold(&cx(), &volume.key).unwrap();
    let brief = Context::new(Duration::from_millis(20), Arc::new(System));
    let refused = rig.exports().attach(&brief, &volume, &to("one")).unwrap_err();
    assert!(refused.retry_can_help(), "{}", refused.report());
}

#[test]
fn an_attachment_that_was_ended_stays_so_while_its_device_cannot_be_let_go() {
    let mut rig = Rig::new();
    let volume = rig.volume("v");
    rig.attach(&volume, &to("one")).unwrap();
    rig.store.is_busy.store(true, Ordering::Relaxed);
    rig.detach(&volume, &node("one")).unwrap_err();
    for _ in 0..2 {
        rig.exports().probe(&cx()).unwrap_err();
        assert!(rig.kernel.nodes().is_empty() && rig.has_device(&volume) && rig.attached(&volume) == 0);
        rig.restart();
    }
    rig.exports().delete(&cx(), &volume).unwrap_err();
    rig.store.is_busy.store(false, Ordering::Relaxed);
    rig.detach(&volume, &node("one")).unwrap();
    assert!(!rig.has_device(&volume));
    rig.exports().delete(&cx(), &volume).unwrap();
}

#[test]
fn a_node_that_is_attached_again_finds_nothing_under_the_name_it_had() {
    let rig = Rig::new();
    let volume = rig.volume("v");
    let (first, second) = (to("one"), to("one"));
    let before = rig.attach(&volume, &first).unwrap();
    let refused = rig.attach(&volume, &second).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    rig.detach(&volume, &first.node).unwrap();
    assert_ne!(rig.attach(&volume, &second).unwrap(), before);
}

#[test]
fn what_grows_is_told_to_all_it_is_exported_to_each_time() {
    let rig = Rig::new();
    let volume = rig.volume("v");
    let larger = CapacityRange::new(8192, 0).unwrap();
    rig.exports().expand(&cx(), &volume, larger).unwrap();
    assert_eq!(rig.store.state.lock().unwrap().refreshed, 0);
    rig.attach(&volume, &to("one")).unwrap();
    rig.attach(&volume, &to("two")).unwrap();
    for times in 1..=2 {
        rig.exports().expand(&cx(), &volume, larger).unwrap();
        assert_eq!(rig.store.state.lock().unwrap().refreshed, times);
        assert_eq!(rig.kernel.grown.lock().unwrap().len(), 2 * times);
    }
}

#[test]
fn grants_of_another_store_are_refused() {
    let mut rig = Rig::new();
    rig.exports = None;
    let file = rig.folder.path().join("device");
    let instance = InstanceId::random().unwrap();
    rig.store = Arc::new(Store { instance, file, state: Mutex::default(), is_busy: AtomicBool::new(false) });
    let refused = rig.open().err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition, "{}", refused.report());
    let findings = Exports::<Kernel>::check(&rig.configured(), &opening(), &rig.grants(), "test");
    assert!(findings.iter().any(|finding| !finding.remedy.is_empty()), "{findings:?}");
    let missing = Path::new("/nowhere/grants");
    assert!(Exports::<Kernel>::init(&rig.configured(), &opening(), missing, "test").is_err());
}

#[test]
fn what_is_attached_may_be_written_while_it_is_held_here() {
    let rig = Rig::new();
    let volume = rig.volume("v");
    let seen = cx().with_attach(rig.exports().clone());
    let held = || {
        let held = seen.hold(&[rig.exports().volume_id(&volume)], Duration::from_secs(1)).unwrap();
        let uses = held.uses().to_vec();
        held.let_go().unwrap();
        uses
    };
    assert_eq!(held(), [InUse::No]);
    rig.attach(&volume, &to("one")).unwrap();
    assert_eq!(held(), [InUse::Writable]);
}

#[test]
fn names_of_exports_come_back() {
    let rig = Rig::new();
    let volume = rig.volume("v.1");
    let id = ExportId { volume: rig.exports().volume_id(&volume), word: Generation::random().unwrap() };
    assert_eq!(id.to_string().parse::<ExportId>().unwrap(), id);
    assert!("a.b".parse::<ExportId>().is_err());
}
