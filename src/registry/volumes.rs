//! The rules over a driver's volumes that are the same for every driver.

use dunnage_driver_api::{
    Capacity, CapacityRange, Context, CreateVolume, Error, ErrorKind, Expanded, Parameters, Result, Volume, VolumeId,
};

use super::backend::ServedBackend;
use crate::mount::Engine;

impl ServedBackend {
    /// The volume of this id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the instance says that it has none, or has another generation of it.
    pub fn volume(&self, cx: &Context, id: &VolumeId) -> Result<Volume> {
        match self.volumes()?.find(cx, &id.key)? {
            Some(volume) if volume.generation == id.generation => Ok(volume),
            Some(_) => Err(Error::not_found("this volume was deleted; another of its name exists").with("volume", id)),
            None => Err(Error::not_found("this volume does not exist").with("volume", id)),
        }
    }

    /// The volume of this id, where this node has the store; elsewhere nothing is known of it, and it is the node half
    /// that looks whether there is such a volume.
    ///
    /// # Errors
    /// As [`volume`](Self::volume).
    pub fn volume_where_known(&self, cx: &Context, id: &VolumeId) -> Result<Option<Volume>> {
        if self.backend.volumes.is_none() { Ok(None) } else { self.volume(cx, id).map(Some) }
    }

    /// Makes the volume where `reaches` lets it be here, or finds the one that the same request made before.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where the name is taken by a volume that this request would not have made, or not
    /// here; else that of `reaches`.
    pub fn create(&self, cx: &Context, request: &CreateVolume, reaches: impl FnOnce() -> Result<()>) -> Result<Volume> {
        let create = self.backend.create.as_ref().ok_or_else(|| unsupported("makes no volumes"))?;
        self.fits(&request.capabilities, &request.parameters)?;
        self.fits_mutable(&request.mutable_parameters)?;
        match self.volumes()?.find(cx, &request.key)? {
            Some(remains) if create.is_half_deleted(cx, &remains)? => {
                reaches()?;
                create.delete(cx, &remains)?;
                create.create(cx, &self.filled(cx, request)?)
            }
            Some(existing) => {
                let existing = same(existing, request)?;
                reaches().map_err(|error| differs(request, "is not where this one is asked for").caused_by(error))?;
                Ok(existing)
            }
            None => {
                reaches()?;
                create.create(cx, &self.filled(cx, request)?)
            }
        }
    }

    /// The request with what the volume is to hold.
    fn filled(&self, cx: &Context, request: &CreateVolume) -> Result<CreateVolume> {
        match &request.source {
            Some(source) => request.clone().holding(source.clone(), self.content(cx, source)?),
            None => Ok(request.clone()),
        }
    }

    /// Changes the volume.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for parameters that cannot be; [`ErrorKind::NotFound`] where it does not exist.
    pub fn modify(&self, cx: &Context, id: &VolumeId, parameters: &Parameters) -> Result<()> {
        let (modify, _) = self.backend.modify.as_ref().ok_or_else(|| unsupported("changes no volumes"))?;
        self.fits_mutable(parameters)?;
        modify.modify(cx, &self.volume(cx, id)?, parameters)
    }

    /// Removes the volume; succeeds where it is gone already. One that is only staged on this node is unstaged first.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] where it is published on this node, or attached to any.
    pub fn delete(&self, cx: &Context, engine: Option<&Engine>, id: &VolumeId) -> Result<()> {
        let create = self.backend.create.as_ref().ok_or_else(|| unsupported("removes no volumes"))?;
        let found = || match self.volume(cx, id) {
            Ok(volume) => Ok(Some(volume)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let volume = match found()? {
            Some(volume) => volume,
            None => {
                create.abandon(cx, &id.key, &id.generation)?;
                // It may have been whole at that moment.
                let Some(volume) = found()? else { return Ok(()) };
                volume
            }
        };
        self.refuse_attached(cx, &volume).map_err(|error| error.with("volume", id))?;
        if let Some(engine) = engine {
            let uses = engine.uses(id)?;
            if let Some(target) = uses.published.first() {
                return Err(Error::precondition(format!(
                    "the volume is published on this node at {}: unpublish it first",
                    target
                ))
                .with("volume", id));
            }
            if uses.staged.is_some() {
                engine.unstage_all(cx, &|cx, record| self.release(cx, record), id)?;
            }
            engine.forget(cx, id)?;
        }
        create.delete(cx, &volume)
    }

    /// What room there is for volumes of these parameters.
    ///
    /// # Errors
    /// Where the store could not be read.
    pub fn room(&self, cx: &Context, parameters: &Parameters) -> Result<Capacity> {
        self.backend.room.as_ref().ok_or_else(|| unsupported("does not tell its capacity"))?.capacity(cx, parameters)
    }

    /// Grows the volume.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it does not exist; [`ErrorKind::OutOfRange`] where it is larger than the limit or
    /// cannot become as large as required.
    pub fn expand(&self, cx: &Context, id: &VolumeId, capacity: CapacityRange) -> Result<Expanded> {
        let expand = self.backend.expand.as_ref().ok_or_else(|| unsupported("grows no volumes"))?;
        let volume = self.volume(cx, id)?;
        if let Some(limit) = capacity.limit().filter(|limit| *limit < volume.capacity) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("the volume has {} and cannot shrink to the limit of {limit}", volume.capacity),
            )
            .with("volume", id));
        }
        expand.expand(cx, &volume, capacity).map_err(final_for_a_resizer)
    }
}

/// A resizer takes RESOURCE_EXHAUSTED for "still running": what cannot fit is [`ErrorKind::OutOfRange`] to it.
fn final_for_a_resizer(error: Error) -> Error {
    if error.kind() != ErrorKind::ResourceExhausted {
        return error;
    }
    Error::new(ErrorKind::OutOfRange, "the store has no room for the larger volume").caused_by(error)
}

pub(super) fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this backend {what}"))
}

/// The existing volume, where the request would have made the same.
fn same(existing: Volume, request: &CreateVolume) -> Result<Volume> {
    if existing.fingerprint != request.fingerprint {
        return Err(differs(request, "was made with other parameters, another access type or file system"));
    }
    if !request.capacity.holds(existing.capacity) {
        let what = format!("has {} bytes, which is not {}", existing.capacity.get(), request.capacity);
        return Err(differs(request, &what));
    }
    Ok(existing)
}

fn differs(request: &CreateVolume, what: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("a volume of this name exists and {what}: use another name"))
        .with("name", &request.name)
}
