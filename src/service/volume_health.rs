//! ControllerGetVolumeHealth and ControllerListVolumeHealth: what the stores know to be wrong with their volumes.

use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{Context, Error, Result, VolumeKey};
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use super::list::Page;
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
    if let [absent, ..] = shared.plugin.absent().as_slice() {
        return Err(refused(Error::precondition(format!(
            "the store of backend {absent} is not open, so that the health of its volumes is not known: a list without \
             them would say that they are well"
        ))));
    }
    let mut page = Page::new(max_entries);
    for backend in shared.plugin.backends() {
        let instance = &backend.backend.instance;
        let mut from = match &start {
            Some(token) if *instance < token.instance => continue,
            Some(token) if *instance == token.instance => Some(token.after.clone()),
            _ => None,
        };
        loop {
            let after = from.clone();
            let look = move |_: &Shared, backend: &ServedBackend, cx: &Context| look_at(backend, cx, after.as_ref());
            let Looked { more_after, adverse } = shared.read(call.clone(), backend.clone(), None, look).await?;
            for (key, health) in adverse {
                if !page.add(health, instance, key) {
                    let (entries, next_token) = page.full();
                    return Ok(csi::ControllerListVolumeHealthResponse { entries, next_token });
                }
            }
            if more_after.is_none() {
                break;
            }
            from = more_after;
        }
    }
    Ok(csi::ControllerListVolumeHealthResponse { entries: page.entries, next_token: String::new() })
}

/// Some volumes that were looked at.
struct Looked {
    /// The last of them, where there may be more.
    more_after: Option<VolumeKey>,
    /// Those that are not well.
    adverse: Vec<(VolumeKey, csi::VolumeHealth)>,
}

fn look_at(backend: &ServedBackend, cx: &Context, after: Option<&VolumeKey>) -> Result<Looked> {
    let volumes = backend.volumes()?.list(cx, after, CHUNK)?;
    let more_after = volumes.last().filter(|_| volumes.len() == CHUNK).map(|volume| volume.key.clone());
    let mut adverse = Vec::new();
    for volume in volumes {
        let findings = backend.health_of(cx, &volume)?;
        if !findings.is_empty() {
            let health = wire::volume_health_to_wire(backend.id(&volume).to_string(), &findings);
            adverse.push((volume.key, health));
        }
    }
    Ok(Looked { more_after, adverse })
}
