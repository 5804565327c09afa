//! What the host may ask of exports: the abilities of the store, with what exports add to them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Exports, Grant, Granted, Target};
use crate::attach::{Attach, Attachment};
use crate::capacity::CapacityRange;
use crate::context::Context;
use crate::controller::{Create, Expand, Volumes};
use crate::error::{Error, Result};
use crate::id::{Generation, NodeId, VolumeKey};
use crate::root::Record;
use crate::volume::{CreateVolume, Expanded, Total, Volume};

impl<T: Target> Attach for Exports<T> {
    /// Ends exports that nobody was granted, and makes those that were, as far as the deadline lets it: the others are made
    /// by [`probe`](Volumes::probe).
    fn restore(&self, cx: &Context) -> Result<()> {
        self.withdraw_ungranted(cx)?;
        for key in self.grants.keys() {
            if Instant::now() >= cx.deadline {
                // What is made already is kept out of reach until the end, and its nodes wait.
                tracing::error!(volume = %key, "this volume and those after it are exported later: others took too long");
                break;
            }
            if let Err(error) = self.settle(cx, &key) {
                tracing::error!(volume = %key, error = error.report(), "a volume is not exported; it is tried again");
            }
        }
        self.target.restored(cx)
    }

    fn attached(&self, _: &Context, key: &VolumeKey, generation: &Generation) -> Result<Vec<Attachment>> {
        let found = self.grants.get(key).filter(|found| found.volume.generation == *generation);
        let grants = found.map(|found| found.extra.grants).unwrap_or_default();
        Ok(grants.into_iter().map(|grant| grant.attachment).collect())
    }

    fn attach(&self, cx: &Context, volume: &Volume, attachment: &Attachment) -> Result<BTreeMap<String, String>> {
        let _held = self.grants.hold(cx, &volume.key)?;
        let mut record = match self.grants.get(&volume.key) {
            Some(record) if record.volume.generation == volume.generation => record,
            before => {
                // Of a volume that was deleted.
                before.map_or(Ok(()), |before| self.end(cx, before))?;
                Record { volume: volume.clone(), extra: Granted { grants: Vec::new(), carved: None } }
            }
        };
        let own = self.target.grant(cx, attachment)?;
        let context = self.target.context(&self.id(volume, attachment), &own);
        let grant = Grant { attachment: attachment.clone(), own };
        record.volume = volume.clone();
        match record.extra.grants.iter_mut().find(|known| known.attachment.node == attachment.node) {
            Some(known) if known.attachment.word != attachment.word => {
                return Err(Error::precondition("the volume is attached to this node already: detach it first"));
            }
            Some(known) => *known = grant,
            None => record.extra.grants.push(grant),
        }
        self.grants.put(&record)?;
        self.bring(cx, record)?;
        Ok(context)
    }

    fn detach(&self, cx: &Context, key: &VolumeKey, generation: &Generation, node: &NodeId) -> Result<()> {
        let _held = self.grants.hold(cx, key)?;
        let found = self.grants.get(key).filter(|found| found.volume.generation == *generation);
        let Some(mut record) = found else { return Ok(()) };
        let (ended, left): (Vec<_>, Vec<_>) =
            record.extra.grants.into_iter().partition(|grant| grant.attachment.node == *node);
        for grant in &ended {
            self.target.withdraw(cx, &self.id(&record.volume, &grant.attachment))?;
        }
        record.extra.grants = left;
        self.grants.put(&record)?;
        if record.extra.grants.is_empty() { self.end(cx, record) } else { Ok(()) }
    }
}

impl<T: Target> Volumes for Exports<T> {
    fn find(&self, cx: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        self.volumes.find(cx, key)
    }

    fn list(&self, cx: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        self.volumes.list(cx, after, limit)
    }

    fn total(&self, cx: &Context) -> Result<Option<Total>> {
        self.volumes.total(cx)
    }

    /// Asks the store, and makes anew what is not exported as it should be.
    fn probe(&self, cx: &Context) -> Result<()> {
        self.volumes.probe(cx)?;
        self.mend(cx)
    }
}

impl<T: Target> Exports<T> {
    fn create_of_store(&self) -> Result<&dyn Create> {
        self.store.create.as_deref().ok_or_else(|| Error::internal("the store makes no volumes"))
    }
}

impl<T: Target> Create for Exports<T> {
    fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        self.create_of_store()?.create(cx, request)
    }

    /// Once nothing of it is exported.
    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        let _held = self.grants.hold(cx, &volume.key)?;
        if let Some(record) = self.grants.get(&volume.key) {
            if record.volume.generation == volume.generation && !record.extra.grants.is_empty() {
                return Err(Error::precondition("the volume is attached to a node: detach it first"));
            }
            self.end(cx, record)?;
        }
        self.create_of_store()?.delete(cx, volume)
    }

    fn abandon(&self, cx: &Context, key: &VolumeKey, generation: &Generation) -> Result<()> {
        self.create_of_store()?.abandon(cx, key, generation)
    }

    fn is_half_deleted(&self, cx: &Context, volume: &Volume) -> Result<bool> {
        self.create_of_store()?.is_half_deleted(cx, volume)
    }
}

impl<T: Target> Expand for Exports<T> {
    /// Each time also what is exported: an earlier call may have been cut off in between.
    fn expand(&self, cx: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let expand = self.store.expand.as_ref().ok_or_else(|| Error::internal("the store grows no volumes"))?;
        let _held = self.grants.hold(cx, &volume.key)?;
        let expanded = expand.expand(cx, volume, capacity)?;
        let found = self.grants.get(&volume.key).filter(|found| found.volume.generation == volume.generation);
        let Some(record) = found.filter(|found| !found.extra.grants.is_empty()) else { return Ok(expanded) };
        if let Some(release) = self.release_record(&record) {
            self.node.refresh(cx, &release)?;
        }
        for grant in &record.extra.grants {
            self.target.grown(cx, &self.id(&record.volume, &grant.attachment))?;
        }
        Ok(expanded)
    }
}
