//! Snapshots.

use std::collections::BTreeMap;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::*;
use tonic::Status;

use super::disk::{self, failed};
use super::state::{Snapshot, State, Volume};
use super::{Answer, Plugin, now, ok, page};
use crate::mutant::Mutant;

impl Plugin {
    /// Takes a snapshot of a volume.
    pub(super) fn cut(&self, state: &mut State, source: &str, name: &str, group: &str) -> Result<Snapshot, Status> {
        let volume = state.volumes.get(source).cloned();
        let volume = match volume {
            None if self.is(Mutant::SnapshotsUnknownSource) => {
                disk::make(&self.volume_path(source), false, 0).map_err(failed)?;
                let id = source.to_owned();
                Some(Volume {
                    id,
                    name: String::new(),
                    capacity: 1,
                    block: false,
                    parameters: BTreeMap::new(),
                    source: None,
                })
            }
            volume => volume,
        };
        let volume = volume.ok_or_else(|| Status::not_found(format!("there is no volume {source}")))?;
        let id = state.id('s');
        if self.is(Mutant::GroupMembersAreEmpty) && !group.is_empty() {
            disk::make(&self.snapshot_path(&id), volume.block, volume.capacity).map_err(failed)?;
        } else if self.is(Mutant::SnapshotFollowsItsSource) {
            std::os::unix::fs::symlink(self.volume_path(&volume.id), self.snapshot_path(&id)).map_err(failed)?;
        } else {
            disk::copy(&self.volume_path(&volume.id), &self.snapshot_path(&id)).map_err(failed)?;
        }
        let snapshot = Snapshot {
            id,
            name: name.to_owned(),
            source: volume.id,
            size: volume.capacity,
            block: volume.block,
            time: now(),
            ready: !group.is_empty(),
            group: group.to_owned(),
        };
        state.snapshots.insert(snapshot.id.clone(), snapshot.clone());
        Ok(snapshot)
    }

    fn told_snapshot(&self, snapshot: &Snapshot) -> csi::Snapshot {
        let mut told = snapshot.to_wire();
        if self.is(Mutant::SnapshotTimeIsNow) {
            let (seconds, nanos) = now();
            told.creation_time = Some(prost_types::Timestamp { seconds, nanos });
        }
        if self.is(Mutant::SnapshotWithoutTime) {
            told.creation_time = None;
        }
        if self.is(Mutant::SnapshotWithoutSource) {
            told.source_volume_id.clear();
        }
        told
    }

    pub(super) fn snapshot(&self, request: CreateSnapshotRequest) -> Answer<CreateSnapshotResponse> {
        self.check_name(&request.name)?;
        self.required("source_volume_id", &request.source_volume_id, Mutant::SnapshotsWithoutSourceId)?;
        let mut state = self.state();
        let known = state.snapshots.values_mut().find(|own| own.name == request.name);
        if let Some(snapshot) = known.filter(|_| !self.is(Mutant::NewSnapshotEachTime)) {
            if snapshot.source != request.source_volume_id && !self.is(Mutant::SnapshotIgnoresOtherSource) {
                return Err(Status::already_exists("a snapshot of this name has another source"));
            }
            // The processing is over with the second question.
            snapshot.ready = true;
            let told = self.told_snapshot(snapshot);
            self.save(&state);
            return ok(CreateSnapshotResponse { snapshot: Some(told) });
        }
        let source = match request.source_volume_id.as_str() {
            "" => state.volumes.keys().next().cloned().unwrap_or_default(),
            id => id.to_owned(),
        };
        let mut snapshot = self.cut(&mut state, &source, &request.name, "")?;
        if self.is(Mutant::NewSnapshotEachTime) {
            snapshot.ready = true;
        }
        self.save(&state);
        ok(CreateSnapshotResponse { snapshot: Some(self.told_snapshot(&snapshot)) })
    }

    pub(super) fn unsnapshot(&self, request: DeleteSnapshotRequest) -> Answer<DeleteSnapshotResponse> {
        self.required("snapshot_id", &request.snapshot_id, Mutant::DeletesSnapshotWithoutId)?;
        let mut state = self.state();
        match state.snapshots.get(&request.snapshot_id) {
            None if self.is(Mutant::DeleteUnknownSnapshotFails) => Err(Status::not_found("there is none")),
            Some(own) if !own.group.is_empty() => Err(Status::invalid_argument("it is part of a group")),
            Some(_) if self.is(Mutant::DeleteSnapshotDoesNothing) => ok(DeleteSnapshotResponse {}),
            _ => {
                state.snapshots.remove(&request.snapshot_id);
                self.save(&state);
                disk::remove(&self.snapshot_path(request.snapshot_id.trim_start_matches(['.', '/'])))
                    .map_err(failed)?;
                ok(DeleteSnapshotResponse {})
            }
        }
    }

    pub(super) fn snapshots(&self, request: ListSnapshotsRequest) -> Answer<ListSnapshotsResponse> {
        let state = self.state();
        let ignores = self.is(Mutant::IgnoresSnapshotFilter);
        let wanted = |own: &&Snapshot| {
            ignores
                || (request.snapshot_id.is_empty() || own.id == request.snapshot_id)
                    && (request.source_volume_id.is_empty() || own.source == request.source_volume_id)
        };
        let mut all: Vec<_> = state.snapshots.values().filter(wanted).map(Snapshot::to_wire).collect();
        if self.is(Mutant::FilterGivesTheFirstOnly) && !request.source_volume_id.is_empty() {
            all.truncate(1);
        }
        if self.is(Mutant::UnknownFilterFails) && all.is_empty() && !request.snapshot_id.is_empty() {
            return Err(Status::not_found("there is no such snapshot"));
        }
        if self.is(Mutant::GroupMembersNotListed) {
            all.retain(|own| own.group_snapshot_id.is_empty());
        }
        let all = all.into_iter().map(|snapshot| list_snapshots_response::Entry { snapshot: Some(snapshot) }).collect();
        let most = if self.is(Mutant::SnapshotsIgnoreMaxEntries) { 0 } else { request.max_entries };
        let checks = (!self.is(Mutant::SnapshotsAcceptAnyToken), !self.is(Mutant::SnapshotsAcceptNegative));
        let (entries, next_token) = page(all, most, &request.starting_token, checks)?;
        ok(ListSnapshotsResponse { entries, next_token })
    }

    pub(super) fn find_snapshot(&self, request: GetSnapshotRequest) -> Answer<GetSnapshotResponse> {
        self.required("snapshot_id", &request.snapshot_id, Mutant::GetsSnapshotWithoutId)?;
        let state = self.state();
        match state.snapshots.get(&request.snapshot_id) {
            Some(own) => {
                let mut told = own.to_wire();
                told.ready_to_use &= !self.is(Mutant::GetSnapshotIsNeverReady);
                ok(GetSnapshotResponse { snapshot: Some(told) })
            }
            None if self.is(Mutant::GetsUnknownSnapshot) || self.is(Mutant::GetsSnapshotWithoutId) => {
                ok(GetSnapshotResponse::default())
            }
            None => Err(Status::not_found("there is no such snapshot")),
        }
    }
}
