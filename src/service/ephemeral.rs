//! Ephemeral inline volumes: made, published, unpublished and deleted with their pod.
//!
//! Unpublishing one deletes data, on the word of a handle that is not ours. So nothing is deleted without a [mark](marks)
//! that this node wrote, durably, before it made the volume.

mod marks;

use std::sync::Arc;

use dunnage_driver_api::{
    Bytes, CapacityRange, Context, CreateVolume, Error, ErrorKind, Fingerprint, ForeignId, Result, Staging,
    StagingPath, TargetPath, VolumeCapability, VolumeId, VolumeKey,
};
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use crate::mount::{PublishVolume, StageVolume};
use crate::operations::{Failure, Key, Running};
use crate::registry::ServedBackend;
use crate::status;
use crate::wire::{EphemeralRequest, VolumeHandle, short};
pub use marks::EphemeralMarks;
use marks::Mark;

/// What a pod asks for, within what the backend's configuration allows.
fn allowed(backend: &ServedBackend, request: &EphemeralRequest) -> Result<CreateVolume> {
    let policy = backend.ephemeral.as_ref().ok_or_else(|| {
        Error::precondition(format!(
            "backend {} makes no volumes for pods: the admin can allow them with `ephemeral:` in the configuration",
            backend.name
        ))
    })?;
    if backend.backend.attach.is_some() {
        return Err(Error::precondition(format!(
            "backend {} makes no volumes for pods: its volumes are attached by the controller before a node uses them",
            backend.name
        )));
    }
    if let Some(name) = request.parameters.pairs().keys().find(|name| !policy.parameters.contains(*name)) {
        short("the name of an attribute", name)?;
        let allowed =
            ["size".to_owned()].iter().chain(&policy.parameters).map(|name| format!("{name:?}")).collect::<Vec<_>>();
        return Err(Error::invalid(format!(
            "attribute {name:?} may not be set by a pod on backend {}: there are {}",
            backend.name,
            allowed.join(", ")
        )));
    }
    let size = request.capacity.map_or(policy.max_size, |capacity| capacity.required());
    if size > policy.max_size {
        return Err(Error::invalid(format!(
            "attribute size {size} is more than the {} that the admin allows on backend {}",
            policy.max_size, backend.name
        )));
    }
    let mut parts: std::collections::BTreeMap<_, _> =
        request.parameters.pairs().iter().map(|(key, value)| (format!("parameter {key}"), value.clone())).collect();
    parts.insert("ephemeral".into(), request.handle.clone());
    Ok(CreateVolume::new(
        request.handle.clone(),
        exactly(size)?,
        vec![request.capability.clone()],
        request.parameters.clone(),
        Fingerprint::of(&parts),
    ))
}

fn exactly(size: Bytes) -> Result<CapacityRange> {
    CapacityRange::new(size.to_wire(), 0)
}

/// NodePublishVolume of a volume that lives as long as its pod.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    call: Call,
    request: EphemeralRequest,
) -> std::result::Result<(), Status> {
    let backend = shared.plugin.backend_named(request.backend.as_ref()).map_err(|error| match error.kind() {
        // What CreateVolume says of a closed store is not for a node's call.
        ErrorKind::ResourceExhausted => {
            refused(Error::precondition("no volume can be made for the pod on this node").caused_by(error))
        }
        _ => refused(error),
    })?;
    let create = allowed(&backend, &request).map_err(refused)?;
    let (key, fields) = (
        create.key.clone(),
        (create.fingerprint.clone(), request.target_path.clone(), request.capability.clone(), request.readonly),
    );
    shared
        .change(call, backend, &key, &fields, move |shared, backend, cx| {
            backend.supports(&request.capability)?;
            let mark = shared.ephemeral.begin(&Mark::new(
                request.handle.clone(),
                request.target_path.clone(),
                backend.backend.instance.clone(),
                create.key.clone(),
                create.fingerprint.clone(),
            ))?;
            let published = backend
                .create(cx, &create, || Ok(()))
                .and_then(|volume| {
                    let id = backend.id(&volume);
                    shared.publish_ephemeral(backend, cx, id, volume.context, &request)
                })
                .and_then(|()| shared.ephemeral.set_published(mark.clone()));
            match published {
                // Nobody unpublishes what was never published; a volume that the pod has had keeps its data.
                Err(error) if !mark.published => Err(shared.take_back(backend, cx, &mark, error)),
                published => published,
            }
        })
        .await
}

/// NodeUnpublishVolume of a handle that is not one of our ids: deletes the volume where this node made it for this
/// target, and has nothing to do otherwise.
pub(super) async fn unpublish(
    shared: &Arc<Shared>,
    call: Call,
    handle: String,
    target_path: TargetPath,
) -> std::result::Result<(), Status> {
    refuse_while_published(shared, &handle)?;
    let target = target_path.clone();
    let read = move |shared: &Shared| match shared.ephemeral.read(&handle)?.filter(|mark| mark.target_path == target) {
        Some(mark) => Ok(Some(mark)),
        None => shared.engine()?.unpublish_foreign(&ForeignId(handle), &target).map(|()| None),
    };
    let Some(mark) = here(shared, read).await? else { return Ok(()) };
    let backend = shared.plugin.backend_with(&mark.instance).map_err(refused)?;
    let (key, fields) = (mark.key.clone(), (mark.fingerprint.clone(), target_path.clone()));
    shared
        .change(call, backend, &key, &fields, move |shared, backend, cx| {
            if let Some(id) = marked(backend, cx, &mark)? {
                shared.engine()?.unpublish(&id, &target_path)?;
                backend.delete(cx, shared.engine.as_deref(), &id)?;
            }
            shared.ephemeral.remove(&mark)
        })
        .await
}

/// Says so where a publish of this handle is still at work: while it waits for a thread it has no mark yet, so that its
/// volume would be nobody's afterwards.
fn refuse_while_published(shared: &Shared, handle: &str) -> std::result::Result<(), Status> {
    let volume = VolumeKey::of_name(handle);
    let keys: Vec<Key> = shared.plugin.backends().iter().map(|backend| backend.key(&volume)).collect();
    let publishes = shared.operations.running().into_iter().filter(|running| running.rpc == "NodePublishVolume");
    for Running { rpc: running, keys: held, running_for } in publishes {
        if let Some(key) = held.iter().find(|key| keys.contains(key)).cloned() {
            return Err(status::of_failure("NodeUnpublishVolume", &Failure::Busy { key, running, running_for }));
        }
    }
    Ok(())
}

/// The id of the volume that a request names: for an ephemeral one the orchestrator knows its handle alone.
///
/// # Errors
/// NOT_FOUND for a handle that is neither an id of ours nor of an ephemeral volume of this node.
pub(super) async fn id_of(
    shared: &Arc<Shared>,
    call: Call,
    volume: VolumeHandle,
) -> std::result::Result<VolumeId, Status> {
    let VolumeHandle::Foreign(handle) = &volume else { return volume.ours().map_err(refused) };
    let name = handle.clone();
    let Some(mark) = here(shared, move |shared| shared.ephemeral.read(&name)).await? else {
        return volume.ours().map_err(refused);
    };
    let (backend, key) = (shared.plugin.backend_with(&mark.instance).map_err(refused)?, mark.key.clone());
    let found = shared.read(call, backend, Some(&key), move |_, backend, cx| marked(backend, cx, &mark)).await?;
    found.map_or_else(|| volume.ours().map_err(refused), Ok)
}

/// Reads what lies on this node: on no backend's threads, since it is no backend's.
async fn here<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Status> {
    let reader = shared.clone();
    tokio::task::spawn_blocking(move || read(&reader))
        .await
        .map_err(|error| refused(Error::internal("reading the state of this node was cut off").caused_by(error)))?
        .map_err(refused)
}

/// The volume that was made for the mark, where it is there.
fn marked(backend: &ServedBackend, cx: &Context, mark: &Mark) -> Result<Option<VolumeId>> {
    let found = backend.volumes()?.find(cx, &mark.key)?;
    Ok(found.filter(|volume| volume.fingerprint == mark.fingerprint).map(|volume| backend.id(&volume)))
}

impl Shared {
    /// Undoes a publish that ended with `error`, which it answers.
    fn take_back(&self, backend: &ServedBackend, cx: &Context, mark: &Mark, error: Error) -> Error {
        let undo = || {
            if let Some(id) = marked(backend, cx, mark)? {
                // What is in the way at the target may be another's; where it is ours, the delete refuses.
                let _ = self.engine.as_deref().map(|engine| engine.unpublish(&id, &mark.target_path));
                backend.delete(cx, self.engine.as_deref(), &id)?;
            }
            self.ephemeral.remove(mark)
        };
        match undo() {
            Ok(()) => error,
            Err(left) => error.with("and the volume is left, since", left.report()),
        }
    }

    fn publish_ephemeral(
        &self,
        backend: &ServedBackend,
        cx: &Context,
        volume: VolumeId,
        volume_context: std::collections::BTreeMap<String, String>,
        request: &EphemeralRequest,
    ) -> Result<()> {
        let (node, staging) = backend.node()?;
        let capability: VolumeCapability = request.capability.clone();
        let staging_path = match staging {
            Staging::None => None,
            Staging::Needed => Some(self.ephemeral_staging_path(&volume.key)?),
        };
        if let Some(staging_path) = staging_path.clone() {
            let stage = StageVolume {
                volume: volume.clone(),
                staging_path,
                capability: capability.clone(),
                volume_context: volume_context.clone(),
                publish_context: Default::default(),
            };
            self.engine()?.stage(cx, node, &|cx, record| backend.release(cx, record), &stage)?;
        }
        let publish = PublishVolume {
            volume,
            staging_path,
            target_path: request.target_path.clone(),
            capability,
            readonly: request.readonly,
            volume_context,
            publish_context: Default::default(),
        };
        self.engine()?.publish(cx, node, staging, &publish)
    }

    /// Where an ephemeral volume is staged: beside the plugin's socket, in a folder that is shared with the host, so
    /// that the mount outlives a container.
    fn ephemeral_staging_path(&self, key: &VolumeKey) -> Result<StagingPath> {
        let path = self.folder.join("ephemeral").join(key.as_str());
        let text = path.to_str().ok_or_else(|| Error::internal("the path of the sockets is not UTF-8"))?;
        StagingPath::new(text)
    }
}
