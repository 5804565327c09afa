//! The rules over a driver's snapshots, and over what volumes are made from, that are the same for every driver.

use dunnage_driver_api::{
    ContentSource, Context, CreateSnapshot, Error, ErrorKind, Fingerprint, Parameters, Result, Snapshot, SnapshotId,
    SnapshotKey, Snapshots, SourceId, TargetKey, VolumeId,
};

use super::backend::ServedBackend;
use super::volumes::unsupported;

/// A snapshot that is wanted.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// The volume it is to be taken of.
    pub source: VolumeId,
    /// Parameters of its class.
    pub parameters: Parameters,
    /// The digest of the request.
    pub fingerprint: Fingerprint,
}

impl ServedBackend {
    /// The driver's snapshots.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where it takes none.
    pub fn snapshots(&self) -> Result<&dyn Snapshots> {
        let snapshots = self.backend.snapshots.as_ref();
        snapshots.map(|(snapshots, _)| snapshots.as_ref()).ok_or_else(|| unsupported("takes no snapshots"))
    }

    /// The snapshot of this id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the instance says that it has none, or has another generation of it.
    pub fn snapshot(&self, cx: &Context, id: &SnapshotId) -> Result<Snapshot> {
        match self.snapshots()?.find(cx, &id.key)? {
            Some(snapshot) if snapshot.generation == id.generation => Ok(snapshot),
            Some(_) => {
                Err(Error::not_found("this snapshot was deleted; another of its name exists").with("snapshot", id))
            }
            None => Err(Error::not_found("this snapshot does not exist").with("snapshot", id)),
        }
    }

    /// Takes the snapshot where `reaches` lets it be here, or finds the one that the same request took before.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where the name is taken by a snapshot that this request would not have taken;
    /// [`ErrorKind::NotFound`] where the volume does not exist. Where it was taken and the copy of its bytes fails: why.
    pub fn create_snapshot(
        &self,
        cx: &Context,
        new: NewSnapshot,
        reaches: impl FnOnce() -> Result<()>,
    ) -> Result<Snapshot> {
        let snapshots = self.snapshots()?;
        if let Some((_, parameters)) = &self.backend.snapshots {
            parameters.check(&new.parameters).map_err(|error| error.with("backend", &self.name))?;
        }
        if let Some(existing) = snapshots.find(cx, &SnapshotKey::of_name(&new.name))? {
            if existing.fingerprint == new.fingerprint {
                if !snapshots.is_half_deleted(cx, &existing)? {
                    let failure = self.failure(&TargetKey::Snapshot(existing.key.clone()));
                    let failure = failure.filter(|_| !existing.ready);
                    return failure.map_or(Ok(existing), |error| {
                        Err(error.during("copy the snapshot, which is tried again").with("name", &new.name))
                    });
                }
                snapshots.delete(cx, &existing)?;
            } else {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "a snapshot of this name exists, taken of volume {} or with other parameters: use another name",
                        existing.source
                    ),
                )
                .with("name", &new.name));
            }
        }
        reaches()?;
        let volume = self.volume(cx, &new.source)?;
        let NewSnapshot { name, source, parameters, fingerprint } = new;
        snapshots.create(cx, &CreateSnapshot::new(name, source, volume, parameters, fingerprint))
    }

    /// Removes the snapshot; succeeds where it is gone already.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] where something still needs it; [`ErrorKind::InvalidArgument`] for a member of a
    /// group.
    pub fn delete_snapshot(&self, cx: &Context, id: &SnapshotId) -> Result<()> {
        let snapshots = self.snapshots()?;
        let found = match self.snapshot(cx, id) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                snapshots.abandon(cx, &id.key, &id.generation)?;
                // It may have been whole at that moment.
                self.snapshot(cx, id)
            }
            found => found,
        };
        match found {
            Ok(Snapshot { group: Some(group), .. }) => Err(Error::invalid(format!(
                "the snapshot is a member of group {group} and goes with it alone: call DeleteVolumeGroupSnapshot"
            ))
            .with("snapshot", id)),
            Ok(snapshot) => snapshots.delete(cx, &snapshot),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a volume of this backend is to be made from.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where it lies in another instance, or this backend makes none of such;
    /// [`ErrorKind::NotFound`] where it does not exist, [`ErrorKind::FailedPrecondition`] where it is not ready.
    pub(super) fn content(&self, cx: &Context, source: &SourceId) -> Result<ContentSource> {
        let instance = match source {
            SourceId::Snapshot(id) => &id.instance,
            SourceId::Volume(id) => &id.instance,
        };
        if *instance != self.backend.instance {
            return Err(Error::invalid(format!(
                "the source lies in instance {instance} and backend {} is instance {}: nothing is copied from one store \
                 into another; make the volume where its source is",
                self.name, self.backend.instance
            )));
        }
        match source {
            SourceId::Snapshot(_) if self.backend.snapshots.is_none() => {
                Err(Error::invalid(format!("backend {} makes no volumes from snapshots", self.name)))
            }
            SourceId::Volume(_) if !self.backend.clones => {
                Err(Error::invalid(format!("backend {} makes no volumes from volumes", self.name)))
            }
            SourceId::Snapshot(id) => match self.snapshot(cx, id)? {
                snapshot if snapshot.ready => Ok(ContentSource::Snapshot(snapshot)),
                _ => Err(Error::precondition("the snapshot is still being copied: wait until it is ready to use")
                    .with("snapshot", id)
                    .retry(true)),
            },
            SourceId::Volume(id) => self.volume(cx, id).map(ContentSource::Volume),
        }
    }
}
