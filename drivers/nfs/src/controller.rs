//! The controller half: the root while this process holds it, opened anew where it was lost.
//!
//! A machine that was cut off from the server for long loses the lock, and another one may have taken it; and what is open
//! goes stale when the server's disk is replaced. Then everything that was read of the root is worth nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dunnage_driver_api::root::Jobs;
use dunnage_driver_api::{
    Capacity, CapacityRange, Context, CopyProgress, Copying, Create, CreateSnapshot, CreateVolume, Error, Expand,
    Expanded, Generation, Health, HealthFinding, InstanceId, NodeName, Parameters, Result, Room, Snapshot, SnapshotKey,
    Snapshots, Total, Volume, VolumeKey, Volumes,
};

use crate::config::Nfs;
use crate::export::{Export, is_stale};
use crate::store::{Extra, Store};

/// The root that this process holds.
pub(crate) struct Controller(Arc<Inner>);

struct Inner {
    config: Nfs,
    export: Arc<Export>,
    node: NodeName,
    threads: usize,
    instance: InstanceId,
    told: Mutex<Told>,
    /// Nothing where it was lost and could not be opened again yet.
    store: Mutex<Option<Arc<Store>>>,
}

/// What people are told of the copies: at once, also while the root is being opened.
struct Told {
    copying: Weak<dyn Copying>,
    /// How many attempts have failed in the stores before this one.
    failed: u64,
}

impl Controller {
    /// Opens the root and takes it for this process, of which the backend has so many threads.
    pub(crate) fn open(config: Nfs, export: Arc<Export>, node: NodeName, threads: usize) -> Result<Self> {
        let store = Store::open(&config, export.mount()?, &node, threads)?;
        let instance = store.instance().clone();
        let told = Mutex::new(Told { copying: Arc::downgrade(&store.copies.copying()), failed: 0 });
        let store = Mutex::new(Some(store));
        Ok(Self(Arc::new(Inner { config, export, node, threads, instance, told, store })))
    }

    /// Looks into the root, also while it is silent: whoever wants to know of a volume is answered in time.
    fn look<T: Send + 'static>(&self, look: impl Fn(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        self.0.export.look(move || inner.read(look))
    }
}

impl Inner {
    fn store(&self) -> Result<Arc<Store>> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = store.as_ref() {
            return Ok(store.clone());
        }
        let opened = Store::open(&self.config, self.export.mount()?, &self.node, self.threads)?;
        if *opened.instance() != self.instance {
            return Err(Error::precondition(format!(
                "{} has become instance {}, and was {}: bring the right one back, or restart",
                self.export.shown(),
                opened.instance(),
                self.instance
            )));
        }
        tracing::info!(export = self.export.shown(), "the export is held again");
        self.told().copying = Arc::downgrade(&opened.copies.copying());
        Ok(store.insert(opened).clone())
    }

    /// Lets go of a store that is worth nothing any more.
    fn lose(&self, lost: &Arc<Store>) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.as_ref().is_some_and(|store| Arc::ptr_eq(store, lost)) {
            tracing::warn!(export = self.export.shown(), "the export was lost, to another machine or by a new disk");
            let mut told = self.told();
            told.failed += lost.copies.copying().failed_attempts();
            told.copying = Weak::<Jobs<Extra>>::new();
            *store = None;
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl Fn(&Store) -> Result<T>) -> Result<T> {
        let store = self.store()?;
        match work(&store) {
            Err(error) if is_stale(&error) => {
                self.lose(&store);
                drop(store);
                work(&*self.store()?)
            }
            done => done,
        }
    }

    /// As [`read`](Self::read), once it is sure that the root is still this process's.
    fn change<T>(&self, work: impl Fn(&Store) -> Result<T>) -> Result<T> {
        let store = self.store()?;
        match store.is_ours() {
            Ok(true) => {}
            Ok(false) => self.lose(&store),
            Err(error) if is_stale(&error) => self.lose(&store),
            Err(error) => return Err(error),
        }
        drop(store);
        self.read(work)
    }
}

impl Volumes for Controller {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        let key = key.clone();
        self.look(move |store| store.volume(&key))
    }

    fn list(&self, cx: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        self.0.read(|store| store.list(cx, after, limit))
    }

    fn total(&self, cx: &Context) -> Result<Option<Total>> {
        self.0.read(|store| store.total(cx))
    }

    fn probe(&self, cx: &Context) -> Result<()> {
        self.0.change(|store| store.probe(cx))
    }
}

impl Create for Controller {
    fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        self.0.change(|store| store.create(cx, request))
    }

    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        self.0.change(|store| store.delete(cx, volume))
    }

    fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        self.0.change(|store| store.abandon(cx, key, generation))
    }

    fn is_half_deleted(&self, cx: &Context, volume: &Volume) -> Result<bool> {
        self.0.read(|store| store.is_half_deleted(cx, volume))
    }
}

impl Snapshots for Controller {
    fn find(&self, cx: &Context, key: &SnapshotKey) -> Result<Option<Snapshot>> {
        let (cx, key) = (cx.clone(), key.clone());
        self.look(move |store| store.copies.find(&cx, &key))
    }

    fn list(&self, cx: &Context, after: Option<&SnapshotKey>, limit: usize) -> Result<Vec<Snapshot>> {
        self.0.read(|store| store.copies.list(cx, after, limit))
    }

    fn create(&self, cx: &Context, request: &CreateSnapshot) -> Result<Snapshot> {
        self.0.change(|store| Snapshots::create(&*store.copies, cx, request))
    }

    fn delete(&self, cx: &Context, snapshot: &Snapshot) -> Result<()> {
        self.0.change(|store| store.copies.delete(cx, snapshot))
    }

    fn abandon(&self, cx: &Context, key: &SnapshotKey, generation: &Generation) -> Result<()> {
        self.0.change(|store| Snapshots::abandon(&*store.copies, cx, key, generation))
    }

    fn is_half_deleted(&self, cx: &Context, snapshot: &Snapshot) -> Result<bool> {
        self.0.read(|store| store.copies.is_half_deleted(cx, snapshot))
    }
}

impl Copying for Controller {
    fn copies(&self) -> Vec<CopyProgress> {
        self.0.told().copying.upgrade().map(|copying| copying.copies()).unwrap_or_default()
    }

    fn failed_attempts(&self) -> u64 {
        let told = self.0.told();
        told.failed + told.copying.upgrade().map(|copying| copying.failed_attempts()).unwrap_or_default()
    }
}

impl Expand for Controller {
    fn expand(&self, cx: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        self.0.change(|store| store.expand(cx, volume, capacity))
    }
}

impl Health for Controller {
    fn health(&self, cx: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        self.0.read(|store| store.health(cx, volume))
    }
}

impl Room for Controller {
    fn capacity(&self, cx: &Context, parameters: &Parameters) -> Result<Capacity> {
        self.0.read(|store| store.capacity(cx, parameters))
    }
}
