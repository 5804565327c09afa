//! Requests to the node service.

use std::collections::{BTreeMap, HashMap};

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{
    BackendName, Bytes, CapacityRange, Error, Parameters, Result, Secrets, StagingPath, TargetPath, VolumeCapability,
};

use super::capability::capability;
use super::limits::{self, VolumeHandle, missing, passing, short, volume_handle};
use super::parameters::is_orchestrators;
use crate::mount::{PublishVolume, StageVolume};

/// The key by which the kubelet marks a volume that lives as long as its pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The attribute of such a volume that names its backend, where a plugin has several.
const BACKEND: &str = "backend";
/// The attribute of such a volume that names its size, as the configuration writes one.
const SIZE: &str = "size";

/// What a context says to the host and what to the driver. The orchestrator's own keys (names of pods, tokens of
/// service accounts) go no further than here.
fn context(field: &str, wire: HashMap<String, String>) -> Result<(BTreeMap<String, String>, bool)> {
    passing(field, &wire)?;
    let ephemeral = wire.get(EPHEMERAL).is_some_and(|value| value == "true");
    Ok((wire.into_iter().filter(|(key, _)| !is_orchestrators(key)).collect(), ephemeral))
}

fn staging_path(text: &str) -> Result<StagingPath> {
    if text.is_empty() { Err(missing("staging_target_path")) } else { StagingPath::new(text) }
}

fn target_path(text: &str) -> Result<TargetPath> {
    if text.is_empty() { Err(missing("target_path")) } else { TargetPath::new(text) }
}

/// A path that may be a staging or a target path. On one that is none no volume is, which is NOT_FOUND; one that is
/// longer than any path can be is wrong all the same.
fn volume_path(text: &str) -> Result<TargetPath> {
    const LONGEST: usize = libc::PATH_MAX as usize - 1;
    if text.is_empty() {
        return Err(missing("volume_path"));
    }
    TargetPath::new(text).map_err(|error| match text.len() {
        ..=LONGEST => Error::not_found("no volume can be on volume_path").caused_by(error),
        _ => Error::invalid("volume_path cannot be a path").caused_by(error),
    })
}

fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A checked NodeStageVolume.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What the mount engine is asked for.
    pub request: StageVolume,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked NodeStageVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument), or
/// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for an id that we never made.
pub fn stage(wire: csi::NodeStageVolumeRequest) -> Result<Stage> {
    let volume = volume_handle(wire.volume_id)?;
    let staging_path = staging_path(&wire.staging_target_path)?;
    let capability = capability(wire.volume_capability)?;
    let (volume_context, _) = context("volume_context", wire.volume_context)?;
    let (publish_context, _) = context("publish_context", wire.publish_context)?;
    let secrets = limits::secrets(wire.secrets)?;
    let volume = volume.ours()?;
    Ok(Stage { request: StageVolume { volume, staging_path, capability, volume_context, publish_context }, secrets })
}

/// A checked NodeUnstageVolume.
#[derive(Debug, Clone)]
pub struct Unstage {
    /// The volume.
    pub volume: VolumeHandle,
    /// Where it is staged.
    pub staging_path: StagingPath,
}

/// A checked NodeUnstageVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn unstage(wire: csi::NodeUnstageVolumeRequest) -> Result<Unstage> {
    Ok(Unstage { volume: volume_handle(wire.volume_id)?, staging_path: staging_path(&wire.staging_target_path)? })
}

/// A checked NodePublishVolume.
#[derive(Debug, Clone)]
pub enum Publish {
    /// A volume that was made by CreateVolume.
    Volume(PublishVolume, Secrets),
    /// A volume that lives as long as its pod, made and published in one call.
    Ephemeral(EphemeralRequest, Secrets),
}

/// An ephemeral inline volume, as a pod's author asks for it: nothing of it is to be trusted.
#[derive(Debug, Clone)]
pub struct EphemeralRequest {
    /// The orchestrator's handle, which is also the name of the volume.
    pub handle: String,
    /// Where it is to be published.
    pub target_path: TargetPath,
    /// How it is to be used.
    pub capability: VolumeCapability,
    /// Whether it is to be read only.
    pub readonly: bool,
    /// The backend that is to have it, where the pod names one.
    pub backend: Option<BackendName>,
    /// How large it is to be, where the pod says so.
    pub capacity: Option<CapacityRange>,
    /// The rest of the attributes: class parameters, if the backend's configuration allows each.
    pub parameters: Parameters,
}

/// A checked NodePublishVolumeRequest.
///
/// # Errors
/// As [`stage`]. Whether a staging path is needed is known only to the volume's backend.
pub fn publish(wire: csi::NodePublishVolumeRequest) -> Result<Publish> {
    let handle = volume_handle(wire.volume_id)?;
    let target_path = target_path(&wire.target_path)?;
    let staging_path = optional(&wire.staging_target_path, StagingPath::new)?;
    let capability = capability(wire.volume_capability)?;
    let (volume_context, ephemeral) = context("volume_context", wire.volume_context)?;
    let (publish_context, _) = context("publish_context", wire.publish_context)?;
    let secrets = limits::secrets(wire.secrets)?;
    let readonly = wire.readonly;
    if let (true, VolumeHandle::Foreign(handle)) = (ephemeral, &handle) {
        let handle = limits::name("volume_id", handle.clone())?;
        let request = inline(handle, target_path, capability, readonly, volume_context)?;
        return Ok(Publish::Ephemeral(request, secrets));
    }
    let volume = handle.ours()?;
    let request =
        PublishVolume { volume, staging_path, target_path, capability, readonly, volume_context, publish_context };
    Ok(Publish::Volume(request, secrets))
}

fn inline(
    handle: String,
    target_path: TargetPath,
    capability: VolumeCapability,
    readonly: bool,
    mut attributes: BTreeMap<String, String>,
) -> Result<EphemeralRequest> {
    let backend = attributes.remove(BACKEND).map(|name| name.parse()).transpose()?;
    let capacity = attributes.remove(SIZE).map(|size| {
        short("attribute size", &size)?;
        let bytes: Bytes = size.parse().map_err(|error| Error::invalid("attribute size").caused_by(error))?;
        if bytes.get() == 0 {
            return Err(Error::invalid("attribute size is 0: leave it out for the largest that is allowed"));
        }
        CapacityRange::new(bytes.to_wire(), 0)
    });
    let capacity = capacity.transpose()?;
    let parameters = Parameters::new(attributes);
    Ok(EphemeralRequest { handle, target_path, capability, readonly, backend, capacity, parameters })
}

/// A checked NodeUnpublishVolume.
#[derive(Debug, Clone)]
pub struct Unpublish {
    /// The volume.
    pub volume: VolumeHandle,
    /// Where it is published.
    pub target_path: TargetPath,
}

/// A checked NodeUnpublishVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn unpublish(wire: csi::NodeUnpublishVolumeRequest) -> Result<Unpublish> {
    Ok(Unpublish { volume: volume_handle(wire.volume_id)?, target_path: target_path(&wire.target_path)? })
}

/// A checked NodeGetVolumeStats.
#[derive(Debug, Clone)]
pub struct Stats {
    /// The volume.
    pub volume: VolumeHandle,
    /// Where it is staged or published.
    pub path: TargetPath,
}

/// A checked NodeGetVolumeStatsRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing;
/// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a path on which no volume can be.
pub fn stats(wire: csi::NodeGetVolumeStatsRequest) -> Result<Stats> {
    let volume = volume_handle(wire.volume_id)?;
    let path = volume_path(&wire.volume_path)?;
    optional(&wire.staging_target_path, StagingPath::new)?;
    Ok(Stats { volume, path })
}

/// The volume of a NodeGetVolumeHealth. Where it is staged and published the node's own records tell.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn health(wire: csi::NodeGetVolumeHealthRequest) -> Result<VolumeHandle> {
    let volume = volume_handle(wire.volume_id)?;
    optional(&wire.volume_publish_path, TargetPath::new)?;
    optional(&wire.staging_target_path, StagingPath::new)?;
    Ok(volume)
}

/// A checked NodeExpandVolume.
#[derive(Debug, Clone)]
pub struct ExpandNode {
    /// The volume.
    pub volume: VolumeHandle,
    /// Where it is staged or published.
    pub path: TargetPath,
    /// How large it must be and may be; without a size where the request has none.
    pub capacity: CapacityRange,
    /// How it is used, where the request says so.
    pub capability: Option<VolumeCapability>,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked NodeExpandVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed, also for a
/// range that is there and names no size; [`OutOfRange`](dunnage_driver_api::ErrorKind::OutOfRange) for an empty range.
pub fn expand_node(wire: csi::NodeExpandVolumeRequest) -> Result<ExpandNode> {
    let volume = volume_handle(wire.volume_id)?;
    let path = volume_path(&wire.volume_path)?;
    optional(&wire.staging_target_path, StagingPath::new)?;
    let capacity = match wire.capacity_range {
        None => CapacityRange::default(),
        Some(range) => CapacityRange::new(range.required_bytes, range.limit_bytes)?,
    };
    if wire.capacity_range.is_some() && capacity == CapacityRange::default() {
        return Err(Error::invalid("capacity_range names no size: set required_bytes or limit_bytes, or leave it out"));
    }
    Ok(ExpandNode {
        volume,
        path,
        capacity,
        capability: wire.volume_capability.map(|one| capability(Some(one))).transpose()?,
        secrets: limits::secrets(wire.secrets)?,
    })
}
