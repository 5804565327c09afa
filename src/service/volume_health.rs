//! ControllerGetVolumeHealth and ControllerListVolumeHealth: what the stores know to be wrong with their volumes.

use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{Context, Result, VolumeKey};
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use super::list::{Looked, Page, all_open, pages};
use crate::registry::ServedBackend;
use crate::wire::{self, Token};

/// How many volumes are looked at in one call of a backend.
const CHUNK: usize = 256;

/// The health of one volume.
pub(super) async fn get(
    shared: &Arc<Shared>,
    call: Call,
    request: csi::ControllerGetVolumeHealthRequest,
) -> std::result::Result<csi::VolumeHealth, Status> {
    let secrets = wire::secrets(request.secrets).map_err(refused)?;
    let id = wire::volume_handle(request.volume_id).and_then(wire::VolumeHandle::ours).map_err(refused)?;
    let backend = shared.plugin.backend_of(&id).map_err(refused)?;
    let (text, key) = (id.to_string(), id.key.clone());
    let findings = shared
        .read(call.with_secrets(secrets), backend, Some(&key), move |_, backend, cx| {
            let volume = backend.volume(cx, &id)?;
            backend.health_of(cx, &volume)
        })
        .await?;
    Ok(wire::volume_health_to_wire(text, &findings))
}

/// The volumes of which something adverse is known, in the order of their instances and keys.
pub(super) async fn list(
    shared: &Arc<Shared>,
    call: Call,
    max_entries: Option<usize>,
    start: Option<Token<VolumeKey>>,
) -> std::result::Result<csi::ControllerListVolumeHealthResponse, Status> {
    all_open(shared, "volumes are not looked at: a list without them would say that they are well")?;
    let look =
        |_: &Shared, backend: &ServedBackend, cx: &Context, after: Option<&VolumeKey>, _| look_at(backend, cx, after);
    let (entries, next_token) = pages(shared, call, Page::new(max_entries), start, |_| true, look).await?;
    Ok(csi::ControllerListVolumeHealthResponse { entries, next_token })
}

/// The health of some volumes, of which those are told that are not well.
fn look_at(
    backend: &ServedBackend,
    cx: &Context,
    after: Option<&VolumeKey>,
) -> Result<Looked<csi::VolumeHealth, VolumeKey>> {
    let volumes = backend.volumes()?.list(cx, after, CHUNK)?;
    let more_after = volumes.last().filter(|_| volumes.len() == CHUNK).map(|volume| volume.key.clone());
    let mut entries = Vec::new();
    for volume in volumes {
        let findings = backend.health_of(cx, &volume)?;
        if !findings.is_empty() {
            let health = wire::volume_health_to_wire(backend.id(&volume).to_string(), &findings);
            entries.push((volume.key, health));
        }
    }
    Ok(Looked { entries, more_after })
}
