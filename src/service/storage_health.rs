//! NodeGetStorageHealth: what of the stores behind a plugin does not answer.

use std::sync::Arc;

use dunnage_csi_proto::csi::v1::StorageHealthErrorType;
use dunnage_csi_proto::csi::v1::node_get_storage_health_response::StorageBackendHealth;
use tonic::Status;

use super::Shared;
use super::call::Call;

/// One entry for each backend of the plugin whose store cannot be read now; none where all can.
pub(super) async fn of(shared: &Arc<Shared>, call: Call) -> Vec<StorageBackendHealth> {
    let mut adverse: Vec<(String, Status)> = Vec::new();
    for backend in shared.plugin.backends() {
        let name = backend.name.to_string();
        let answer = shared
            .read(call.clone(), backend, None, |_, backend, cx| backend.backend.volumes.list(cx, None, 1).map(drop))
            .await;
        adverse.extend(answer.err().map(|status| (name, status)));
    }
    // CSI allows one entry for a reason: the backends that share it are told in its message.
    let message = |(name, status): &(String, Status)| format!("backend {name}: {}", status.message());
    if adverse.is_empty() {
        return Vec::new();
    }
    vec![StorageBackendHealth {
        status: StorageHealthErrorType::StorageUnreachable.into(),
        reason: "StoreNotReadable".to_owned(),
        message: adverse.iter().map(message).collect::<Vec<_>>().join("; "),
        volume_capability: None,
    }]
}
