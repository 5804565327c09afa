//! The volumes of a store, exported to the nodes that they are attached to.
//!
//! Each attachment is an export of its own, under a name that no other ever has. So an export ends without the others of
//! its volume, and what a node still has open of an attachment that was ended reaches nothing, not even when the volume
//! is attached to the same node again.
//!
//! A grant is durable before its export is made, and gone from the exports before it is gone from the records: what is
//! exported was always granted. Once the host has proven whose store it is, exports without a grant are withdrawn; then
//! those that are granted are made, before any call is answered. One that fails is tried again whenever the store is asked
//! for its health.

mod abilities;
mod id;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use id::ExportId;

use super::grants::{self, Carved, Grant, Granted, Grants};
use crate::attach::Attachment;
use crate::boot::boot_id;
use crate::context::Context;
use crate::controller::Volumes;
use crate::driver::{Backend, Configured, Init, Opening, Reach};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::id::{InstanceId, VolumeId, VolumeKey};
use crate::node::{DeviceSource, Node, ReleaseRecord, Source, SourceRequest, Staging};
use crate::root::{Record, Root};
use crate::volume::Volume;

/// How long the exports of one volume may take when they are made anew.
const MEND: Duration = Duration::from_secs(20);

/// The target half of a protocol: makes a block device of this node reachable for one other node. Calls for one volume
/// never run at once.
pub trait Target: Send + Sync + 'static {
    /// What is kept with a grant beside the attachment, as a credential. It is kept in the clear, in a folder that root
    /// alone can read.
    type Grant: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync;

    /// What is to be kept for this attachment; the secrets of the request are in the context.
    ///
    /// # Errors
    /// Where what it needs is missing.
    fn grant(&self, cx: &Context, attachment: &Attachment) -> Result<Self::Grant>;

    /// Makes the export, or whatever of it is missing, for the attachment's node and for no other.
    ///
    /// # Errors
    /// What is missing of the kernel's target, or in its way.
    fn export(&self, cx: &Context, export: &Export<'_, Self::Grant>) -> Result<()>;

    /// Ends the export, or whatever is left of it: nothing that was connected by it reaches the device afterwards, and the
    /// device is let go. Succeeds where there is none.
    ///
    /// # Errors
    /// Where the node may still reach the device.
    fn withdraw(&self, cx: &Context, id: &ExportId) -> Result<()>;

    /// Tells the nodes that the device has grown.
    ///
    /// # Errors
    /// Where the kernel does not take the new size.
    fn grown(&self, cx: &Context, id: &ExportId) -> Result<()>;

    /// Whether the export is there and within reach.
    ///
    /// # Errors
    /// Where it cannot be told.
    fn stands(&self, id: &ExportId) -> Result<bool>;

    /// Called once, by [`Attach::restore`](crate::Attach::restore), when the exports of all that is granted have been made as
    /// far as they can be. Until then a target should keep them out of reach, so that they appear at once: a node that finds
    /// some of its exports missing may give up what it still has of them.
    ///
    /// # Errors
    /// Where they cannot be brought within reach.
    fn restored(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// All exports of this instance that are there, whole or not.
    ///
    /// # Errors
    /// Where they cannot be listed.
    fn exported(&self, instance: &InstanceId) -> Result<Vec<ExportId>>;

    /// What a node must be told to find the export (CSI publish_context): the same as long as the attachment lasts. No
    /// secrets.
    fn context(&self, id: &ExportId, grant: &Self::Grant) -> std::collections::BTreeMap<String, String>;
}

/// What is to be exported.
#[non_exhaustive]
pub struct Export<'a, G> {
    /// Its name.
    pub id: ExportId,
    /// The device.
    pub path: &'a Path,
    /// To whom.
    pub attachment: &'a Attachment,
    /// What is kept for it.
    pub grant: &'a G,
}

/// The exports of a store that is open on this node.
pub struct Exports<T: Target> {
    target: T,
    store: Backend,
    node: Arc<dyn Node>,
    volumes: Arc<dyn Volumes>,
    configured: Arc<dyn Configured>,
    pub(super) grants: Grants<T::Grant>,
    boot: String,
    /// The volume that was mended last, while nobody mends.
    mended: Mutex<Option<VolumeKey>>,
}

impl<T: Target> Exports<T> {
    /// Marks the store, and `folder` as that of its grants; for [`Carry::init`](super::Carry::init).
    ///
    /// # Errors
    /// Those of the store; as [`Root::init`] for the folder.
    pub fn init(store: &Arc<dyn Configured>, opening: &Opening, folder: &Path, driver: &str) -> Result<Init> {
        let done = store.init(opening)?;
        let (Init::Created(instance) | Init::Existing(instance)) = &done;
        grants::init(folder, driver, instance)?;
        Ok(done)
    }

    /// What `check` says of the store and of `folder`; for [`Carry::check`](super::Carry::check).
    pub fn check(store: &Arc<dyn Configured>, opening: &Opening, folder: &Path, driver: &str) -> Vec<Finding> {
        let mut findings = store.check(opening);
        let claims = findings.iter().flat_map(|finding| &finding.claims);
        let instance = claims.filter_map(|claim| claim.thing.strip_prefix("instance ")?.parse().ok()).next();
        if let Some(instance) = instance {
            let own = format!("instance {instance}");
            let mut kept = Root::check(folder, &grants::marker(driver, &instance));
            // The folder has a marker of its own, which is nobody's instance.
            kept.iter_mut().for_each(|finding| finding.claims.retain(|claim| claim.thing == own));
            findings.extend(kept);
        }
        findings
    }

    /// Opens the store and its grants. What is exported stays as it is until [`Attach::restore`](crate::Attach::restore): the
    /// store may be a copy of one whose exports are in use.
    ///
    /// # Errors
    /// Those of the store; FailedPrecondition where its volumes are no devices, or `folder` is not that of its grants.
    pub fn open(
        store: &Arc<dyn Configured>,
        opening: &Opening,
        folder: &Path,
        driver: &str,
        target: T,
    ) -> Result<Arc<Self>> {
        let backend = store.open(opening)?;
        let (Some((node, Staging::Needed)), Some(volumes)) = (backend.node.clone(), backend.volumes.clone()) else {
            return Err(Error::precondition(
                "the volumes of the store are no block devices: only those can be exported",
            ));
        };
        let grants = Grants::open(folder, driver, &backend.instance)?;
        let boot = boot_id()?;
        Ok(Arc::new(Self {
            target,
            store: backend,
            node,
            volumes,
            configured: store.clone(),
            grants,
            boot,
            mended: Mutex::default(),
        }))
    }

    /// The store's instance.
    pub fn instance(&self) -> &InstanceId {
        &self.store.instance
    }

    /// The backend: all abilities of the store, with attaching, for every node, and with this node half.
    pub fn backend(self: &Arc<Self>, node: Arc<dyn Node>) -> Backend {
        let mut backend = self.store.clone().with_volumes(self.clone()).with_attach(self.clone());
        backend.reach = Reach::Everywhere;
        if backend.create.is_some() {
            backend = backend.with_create(self.clone());
        }
        if backend.expand.is_some() {
            backend = backend.with_expand(self.clone());
        }
        backend.with_node(node, Staging::Needed)
    }

    /// Ends what is exported and nobody was granted.
    fn withdraw_ungranted(&self, cx: &Context) -> Result<()> {
        let mut failed = Ok(());
        for id in self.target.exported(self.instance())? {
            // Whoever has it sees to it.
            let Some(_held) = self.grants.try_hold(&id.volume.key) else { continue };
            if self.is_granted(&id) {
                continue;
            }
            tracing::warn!(export = %id, "an export that nobody was granted is withdrawn");
            if let Err(error) = self.target.withdraw(cx, &id) {
                failed = Err(error.during("end an export that nobody was granted").with("export", &id));
            }
        }
        failed
    }

    fn is_granted(&self, id: &ExportId) -> bool {
        let record = self.grants.get(&id.volume.key).filter(|found| found.volume.generation == id.volume.generation);
        record.is_some_and(|found| found.extra.grants.iter().any(|grant| grant.attachment.word == id.word))
    }

    /// Makes whatever is not as the records say, each volume in a time of its own: one that is slow or broken keeps no other
    /// away.
    fn mend(&self, cx: &Context) -> Result<()> {
        let Ok(mut last) = self.mended.try_lock() else {
            return Err(Error::precondition("the exports of the volumes are still being made anew").retry(true));
        };
        let mut failed = self.withdraw_ungranted(cx);
        let mut keys = self.grants.keys();
        let after = last.as_ref().map_or(0, |last| keys.partition_point(|key| key <= last));
        keys.rotate_left(after);
        for key in keys {
            *last = Some(key.clone());
            // Whoever has it sees to it.
            let Some(_held) = self.grants.try_hold(&key) else { continue };
            let Some(record) = self.grants.get(&key) else { continue };
            let mended = match self.all_stand(&record) {
                Ok(true) => Ok(()),
                Ok(false) => self.settle(&Context::new(MEND, cx.commands.clone()), &key),
                Err(error) => Err(error),
            };
            if let Err(error) = mended {
                failed = Err(error.during("export a volume that is attached").with("volume", &key));
            }
        }
        failed
    }

    fn all_stand(&self, record: &Record<Granted<T::Grant>>) -> Result<bool> {
        for grant in &record.extra.grants {
            if !self.target.stands(&self.id(&record.volume, &grant.attachment))? {
                return Ok(false);
            }
        }
        Ok(!record.extra.grants.is_empty())
    }

    /// Makes the exports of one volume as its record says; ends them where the store has no such volume any more.
    fn settle(&self, cx: &Context, key: &VolumeKey) -> Result<()> {
        let Some(record) = self.grants.get(key) else { return Ok(()) };
        match self.volumes.find(cx, key)? {
            Some(volume) if volume.generation == record.volume.generation && !record.extra.grants.is_empty() => {
                self.bring(cx, record)
            }
            _ => self.end(cx, record),
        }
    }

    pub(super) fn volume_id(&self, volume: &Volume) -> VolumeId {
        let (key, generation) = (volume.key.clone(), volume.generation.clone());
        VolumeId { instance: self.instance().clone(), key, generation }
    }

    fn id(&self, volume: &Volume, attachment: &Attachment) -> ExportId {
        ExportId { volume: self.volume_id(volume), word: attachment.word.clone() }
    }

    /// What undoes the store's device, if it was made in this boot.
    fn release_record(&self, record: &Record<Granted<T::Grant>>) -> Option<ReleaseRecord> {
        record.extra.carved.as_ref().filter(|carved| carved.boot == self.boot).map(|carved| carved.release.clone())
    }

    /// Has the store make the device, and exports it for each grant.
    fn bring(&self, cx: &Context, mut record: Record<Granted<T::Grant>>) -> Result<()> {
        let source = self.device(cx, &record)?;
        record.extra.carved = Some(Carved { boot: self.boot.clone(), release: source.release });
        self.grants.put(&record)?;
        for Grant { attachment, own } in &record.extra.grants {
            let id = self.id(&record.volume, attachment);
            self.target.export(cx, &Export { id, path: &source.path, attachment, grant: own })?;
        }
        Ok(())
    }

    fn device(&self, cx: &Context, record: &Record<Granted<T::Grant>>) -> Result<DeviceSource> {
        let (id, kept) = (self.volume_id(&record.volume), self.release_record(record));
        let keep = |release: &ReleaseRecord| {
            let mut record = record.clone();
            record.extra.carved = Some(Carved { boot: self.boot.clone(), release: release.clone() });
            self.grants.put(&record)
        };
        let nothing = Default::default();
        let request = SourceRequest::new(&id, &keep).with_contexts(&record.volume.context, &nothing);
        match self.node.source(cx, &request.with_kept(kept.as_ref()))? {
            Source::Device(source) => Ok(source),
            _ => Err(Error::internal("the store gave no device for a volume that it wants staged")),
        }
    }

    /// Ends all exports of a volume, and lets the store's device go.
    fn end(&self, cx: &Context, mut record: Record<Granted<T::Grant>>) -> Result<()> {
        for grant in &record.extra.grants {
            self.target.withdraw(cx, &self.id(&record.volume, &grant.attachment))?;
        }
        record.extra.grants.clear();
        self.grants.put(&record)?;
        if let Some(release) = self.release_record(&record) {
            self.configured.release(cx, &release)?;
        }
        record.extra.carved = None;
        self.grants.put(&record)
    }
}
