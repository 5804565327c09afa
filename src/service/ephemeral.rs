//! Ephemeral inline volumes: made, published, unpublished and deleted with their pod.
//!
//! Unpublishing one deletes data, on the word of a handle that is not ours. So nothing is deleted without a mark that
//! this node wrote, durably, before it made the volume: `<state>/ephemeral/<digest of handle and target>`.

use std::path::PathBuf;
use std::sync::Arc;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{
    Bytes, CapacityRange, Context, CreateVolume, Error, Fingerprint, InstanceId, Result, Staging, StagingPath,
    TargetPath, VolumeCapability, VolumeId, VolumeKey,
};
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use crate::mount::{PublishVolume, StageVolume};
use crate::registry::ServedBackend;
use crate::wire::EphemeralRequest;

/// What a node must know to delete an ephemeral volume.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    version: u32,
    handle: String,
    target_path: TargetPath,
    instance: InstanceId,
    key: VolumeKey,
    fingerprint: Fingerprint,
}

const VERSION: u32 = 1;
/// Far more than any mark has.
const LARGEST_MARK: u64 = 64 << 10;

/// The marks of this node.
pub(super) struct EphemeralMarks {
    folder: PathBuf,
}

impl EphemeralMarks {
    pub(super) fn new(state: &std::path::Path) -> Self {
        Self { folder: state.join("ephemeral") }
    }

    fn name(handle: &str, target_path: &TargetPath) -> String {
        Fingerprint::of(&[(handle.to_owned(), target_path.to_string())].into()).to_string()
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::io(format!("cannot {what} the mark of the ephemeral volume"), error)
            .with("folder", self.folder.display())
    }

    fn open(&self) -> Result<Folder> {
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| Folder::at(&self.folder))
            .map_err(|error| self.failed("open the folder of", error))
    }

    fn write(&self, mark: &Mark) -> Result<()> {
        let name = Self::name(&mark.handle, &mark.target_path);
        let (folder, half) = (self.open()?, format!("{name}.half"));
        let bytes = serde_json::to_vec(mark).map_err(|error| self.failed("write", error.into()))?;
        folder
            .write(&half, &bytes)
            .and_then(|()| folder.rename(&half, &folder, &name))
            .and_then(|()| folder.sync())
            .map_err(|error| self.failed("write", error))
    }

    /// The mark, or `None` where this node made no such volume.
    fn read(&self, handle: &str, target_path: &TargetPath) -> Result<Option<Mark>> {
        let mut bytes = Vec::new();
        match self.open()?.read(Self::name(handle, target_path), &mut bytes, LARGEST_MARK) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed("read", error))?,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // A later release may have other fields; its version is still the first thing to say.
        let broken = |error: serde_json::Error| self.failed("read", error.into());
        let Version { version } = serde_json::from_slice(&bytes).map_err(broken)?;
        if version != VERSION {
            return Err(Error::precondition(format!(
                "the mark of the ephemeral volume has version {version}, this release knows {VERSION}: run a later one"
            ))
            .with("folder", self.folder.display()));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    fn remove(&self, mark: &Mark) -> Result<()> {
        let folder = self.open()?;
        folder
            .unlink(Self::name(&mark.handle, &mark.target_path))
            .and_then(|()| folder.sync())
            .map_err(|error| self.failed("remove", error))
    }
}

/// What a pod asks for, within what the backend's configuration allows.
fn allowed(backend: &ServedBackend, request: &EphemeralRequest) -> Result<CreateVolume> {
    let policy = backend.ephemeral.as_ref().ok_or_else(|| {
        Error::precondition(format!(
            "backend {} makes no volumes for pods: the admin can allow them with `ephemeral:` in the configuration",
            backend.name
        ))
    })?;
    if let Some(name) = request.parameters.pairs().keys().find(|name| !policy.parameters.contains(*name)) {
        return Err(Error::invalid(format!(
            "attribute {name:?} may not be set by a pod on backend {}: the admin allows {:?}",
            backend.name, policy.parameters
        )));
    }
    let size = request.capacity.map_or(policy.max_size, |capacity| capacity.required());
    if size > policy.max_size {
        return Err(Error::invalid(format!(
            "attribute size {} is more than the {} that the admin allows on backend {}",
            size.get(),
            policy.max_size.get(),
            backend.name
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
    let backend = shared.plugin.backend_named(request.backend.as_ref()).map_err(refused)?;
    let create = allowed(&backend, &request).map_err(refused)?;
    let (key, fields) = (
        create.key.clone(),
        (create.fingerprint.clone(), request.target_path.clone(), request.capability.clone(), request.readonly),
    );
    shared
        .change(call, backend, &key, &fields, move |shared, backend, cx| {
            backend.supports(&request.capability)?;
            shared.ephemeral.write(&Mark {
                version: VERSION,
                handle: request.handle.clone(),
                target_path: request.target_path.clone(),
                instance: backend.backend.instance.clone(),
                key: create.key.clone(),
                fingerprint: create.fingerprint.clone(),
            })?;
            let volume = backend.create(cx, &create, || Ok(()))?;
            let id = backend.id(&volume);
            shared.publish_ephemeral(backend, cx, id, volume.context, &request)
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
    let marks = shared.clone();
    let target = target_path.clone();
    let read = move || marks.ephemeral.read(&handle, &target);
    let mark = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| refused(Error::internal("reading the mark was cut off").caused_by(error)))?
        .map_err(refused)?;
    let Some(mark) = mark else { return Ok(()) };
    let backend = shared.plugin.backend_with(&mark.instance).map_err(refused)?;
    let (key, fields) = (mark.key.clone(), (mark.fingerprint.clone(), target_path.clone()));
    shared
        .change(call, backend, &key, &fields, move |shared, backend, cx| {
            if let Some(volume) = backend.volumes()?.find(cx, &mark.key)?
                && volume.fingerprint == mark.fingerprint
            {
                let id = backend.id(&volume);
                shared.engine()?.unpublish(&id, &target_path)?;
                backend.delete(cx, shared.engine.as_deref(), &id)?;
            }
            shared.ephemeral.remove(&mark)
        })
        .await
}

impl Shared {
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
