//! NodeGetStorageHealth: what of the stores behind a plugin does not answer.

use std::sync::Arc;

use dunnage_csi_proto::csi::v1::StorageHealthErrorType;
use dunnage_csi_proto::csi::v1::node_get_storage_health_response::StorageBackendHealth;
use dunnage_driver_api::Context;
use futures_util::future::join_all;

use super::Shared;
use super::call::Call;
use crate::registry::ServedBackend;

/// One entry for each backend of the plugin whose store does not answer now; none where all do.
pub(super) async fn of(shared: &Arc<Shared>, call: Call) -> Vec<StorageBackendHealth> {
    // All at once: one that hangs must not use up the time of the others.
    let asked = shared.plugin.backends().into_iter().map(|backend| async {
        let name = backend.name.to_string();
        let read = |_: &Shared, backend: &ServedBackend, cx: &Context| {
            backend.backend.volumes.as_ref().map_or(Ok(()), |volumes| volumes.probe(cx))
        };
        let status = shared.read(call.clone(), backend, None, read).await.err()?;
        Some((name, status.message().to_owned()))
    });
    let mut adverse: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    let absent = shared.plugin.absent().into_iter();
    adverse.extend(absent.map(|name| (name.to_string(), "its store is not open on this node".to_owned())));
    adverse.sort();
    // CSI allows one entry for a reason: the backends that share it are told in its message.
    let message = |(name, said): &(String, String)| format!("backend {name}: {said}");
    if adverse.is_empty() {
        return Vec::new();
    }
    vec![StorageBackendHealth {
        status: StorageHealthErrorType::StorageUnreachable.into(),
        reason: "StoreNotAnswering".to_owned(),
        message: adverse.iter().map(message).collect::<Vec<_>>().join("; "),
        volume_capability: None,
    }]
}
