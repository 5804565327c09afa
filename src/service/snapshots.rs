//! CreateSnapshot, DeleteSnapshot, GetSnapshot, ListSnapshots.

use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::list_snapshots_response::Entry;
use dunnage_driver_api::{Context, InstanceId, Reach, Result, Snapshot, SnapshotId, SnapshotKey, VolumeId};
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use super::list::{Looked, Page, all_open, pages};
use crate::operations::{Key, Keys, Lane};
use crate::registry::{NewSnapshot, ServedBackend};
use crate::status;
use crate::wire::{self, Segment, SnapshotHandle, Token, VolumeHandle};

/// How many snapshots a backend is asked for at once.
const CHUNK: usize = 1024;

/// Takes a snapshot. The volume is held against what changes it, and not against other copies of it.
pub(super) async fn create(
    shared: &Arc<Shared>,
    call: Call,
    request: wire::CreateSnapshot,
) -> Result<csi::Snapshot, Status> {
    let wire::CreateSnapshot { name, source, accessibility, parameters, fingerprint, secrets } = request;
    let source = source.ours().map_err(refused)?;
    let backend = shared.plugin.backend_of(&source).map_err(refused)?;
    let instance = backend.backend.instance.clone();
    let key = SnapshotKey::of_name(&name);
    let of_source = Keys::of_source(&source, backend.backend.copies_in_use);
    let keys = Keys::new([Key::snapshot(instance, key.clone())], of_source);
    let lane = Lane::ChangesOfSnapshot(key);
    let fields = (fingerprint.clone(), accessibility.clone());
    let new = NewSnapshot { name, source, parameters, fingerprint };
    let served = backend.clone();
    let snapshot = shared
        .change_all(call.with_secrets(secrets), backend, keys, lane, &fields, move |shared, backend, cx| {
            backend.create_snapshot(cx, new, || shared.reaches(backend, accessibility.as_ref()))
        })
        .await?;
    Ok(shared.snapshot_to_wire(&served, &snapshot))
}

/// Removes a snapshot.
pub(super) async fn delete(
    shared: &Arc<Shared>,
    call: Call,
    request: csi::DeleteSnapshotRequest,
) -> Result<(), Status> {
    let secrets = wire::secrets(request.secrets).map_err(refused)?;
    let SnapshotHandle::Ours(id) = wire::snapshot_handle(request.snapshot_id).map_err(refused)? else {
        return Ok(());
    };
    let backend = shared.plugin.backend_of_snapshot(&id).map_err(refused)?;
    let keys = [Key::snapshot(id.instance.clone(), id.key.clone())].into();
    let (lane, fields) = (Lane::ChangesOfSnapshot(id.key.clone()), id.clone());
    shared
        .change_all(call.with_secrets(secrets), backend, keys, lane, &fields, move |_, backend, cx| {
            backend.delete_snapshot(cx, &id)
        })
        .await
}

/// One snapshot.
pub(super) async fn get(
    shared: &Arc<Shared>,
    call: Call,
    request: csi::GetSnapshotRequest,
) -> Result<csi::Snapshot, Status> {
    let secrets = wire::secrets(request.secrets).map_err(refused)?;
    let id = wire::snapshot_handle(request.snapshot_id).and_then(SnapshotHandle::ours).map_err(refused)?;
    let backend = shared.plugin.backend_of_snapshot(&id).map_err(refused)?;
    find(shared, call.with_secrets(secrets), backend, id).await
}

async fn find(
    shared: &Arc<Shared>,
    call: Call,
    backend: Arc<ServedBackend>,
    id: SnapshotId,
) -> Result<csi::Snapshot, Status> {
    let (served, lane) = (backend.clone(), Lane::ReadsOfSnapshot(id.key.clone()));
    let read = move |_: &Shared, backend: &ServedBackend, cx: &Context| backend.snapshot(cx, &id);
    let snapshot = shared.read_in(call, backend, Some(lane), read).await?;
    Ok(shared.snapshot_to_wire(&served, &snapshot))
}

/// The snapshots that pass the filters of the request: a page of them. One that is not there is no error here.
pub(super) async fn list(
    shared: &Arc<Shared>,
    call: Call,
    request: wire::ListSnapshots,
) -> Result<csi::ListSnapshotsResponse, Status> {
    let wire::ListSnapshots { page, source, snapshot, secrets } = request;
    let start = page.start.map_err(|token| status::bad_token(&token))?;
    let call = call.with_secrets(secrets);
    let nothing = csi::ListSnapshotsResponse::default();
    let source = match source {
        Some(VolumeHandle::Foreign(_)) => return Ok(nothing),
        Some(VolumeHandle::Ours(id)) => {
            // Only its own store may say that a volume has no snapshots.
            shared.plugin.backend_of(&id).map_err(refused)?;
            Some(id)
        }
        None => None,
    };
    match snapshot {
        Some(SnapshotHandle::Foreign(_)) => Ok(nothing),
        Some(SnapshotHandle::Ours(id)) => one(shared, call, id, source).await,
        None => every(shared, call, source, page.max_entries, start).await,
    }
}

/// The one snapshot of a filter by its id, if it is there.
async fn one(
    shared: &Arc<Shared>,
    call: Call,
    id: SnapshotId,
    source: Option<VolumeId>,
) -> Result<csi::ListSnapshotsResponse, Status> {
    let backend = shared.plugin.backend_of_snapshot(&id).map_err(refused)?;
    let found = match find(shared, call, backend, id).await {
        Ok(snapshot) => Some(snapshot),
        Err(status) if status.code() == tonic::Code::NotFound => None,
        Err(status) => return Err(status),
    };
    let of_source = |snapshot: &csi::Snapshot| source.is_none_or(|id| snapshot.source_volume_id == id.to_string());
    let entries = found.filter(of_source).map(|snapshot| Entry { snapshot: Some(snapshot) }).into_iter().collect();
    Ok(csi::ListSnapshotsResponse { entries, next_token: String::new() })
}

/// A page of all snapshots, or of those of one volume.
async fn every(
    shared: &Arc<Shared>,
    call: Call,
    source: Option<VolumeId>,
    max_entries: Option<usize>,
    start: Option<Token<SnapshotKey>>,
) -> Result<csi::ListSnapshotsResponse, Status> {
    all_open(shared, "snapshots cannot be listed: a list without them would say that they are gone")?;
    let instance = source.as_ref().map(|id| id.instance.clone());
    let wanted = move |one: &InstanceId| instance.as_ref().is_none_or(|instance| instance == one);
    let look = move |shared: &Shared, backend: &ServedBackend, cx: &Context, after: Option<&SnapshotKey>, _| {
        let found = backend.snapshots()?.list(cx, after, CHUNK)?;
        let more_after = found.last().filter(|_| found.len() == CHUNK).map(|snapshot| snapshot.key.clone());
        let of_source = found.into_iter().filter(|one| source.as_ref().is_none_or(|id| one.source == *id));
        let entry = |snapshot| Entry { snapshot: Some(shared.snapshot_to_wire(backend, &snapshot)) };
        let entries = of_source.map(|snapshot| (snapshot.key.clone(), entry(snapshot))).collect();
        Ok(Looked { entries, more_after })
    };
    let (entries, next_token) = pages(shared, call, Page::new(max_entries), start, wanted, look).await?;
    Ok(csi::ListSnapshotsResponse { entries, next_token })
}

impl Shared {
    fn snapshot_to_wire(&self, backend: &ServedBackend, snapshot: &Snapshot) -> csi::Snapshot {
        wire::snapshot_to_wire(snapshot, &backend.backend.instance, self.segment_of(backend))
    }

    /// The one segment that a backend's volumes can be used from, where there is one.
    pub(super) fn segment_of(&self, backend: &ServedBackend) -> Option<&Segment> {
        (backend.backend.reach == Reach::Node).then_some(&self.segment)
    }
}
