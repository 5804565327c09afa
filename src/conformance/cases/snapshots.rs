//! CreateSnapshot, DeleteSnapshot, ListSnapshots and GetSnapshot.

use std::collections::HashSet;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use futures_util::future::join_all;
use tonic::Code;

use super::create_volume::PATIENCE;
use super::identity::STRING;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::{Answered, Field, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::undo::same_snapshot;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const SNAPSHOTS: Need = Need::Controller(ControllerRpc::CreateDeleteSnapshot);
const LISTS: Need = Need::Controller(ControllerRpc::ListSnapshots);
const GETS: Need = Need::Controller(ControllerRpc::GetSnapshot);

area! {
    "create-snapshot/answer", "CreateSnapshot", [CREATES, SNAPSHOTS] => |kit| answer(kit);
    "create-snapshot/again", "CreateSnapshot", [CREATES, SNAPSHOTS] => |kit| again(kit);
    "create-snapshot/again-other-source", "CreateSnapshot Errors", [CREATES, SNAPSHOTS] => |kit| other_source(kit);
    "create-snapshot/unknown-source", "CreateSnapshot Errors", [CREATES, SNAPSHOTS] => |kit| unknown_source(kit);
    "create-snapshot/required-fields", "Error Scheme", [CREATES, SNAPSHOTS] => |kit| required(kit);
    "create-snapshot/at-once", "Concurrency", [CREATES, SNAPSHOTS] => |kit| at_once(kit);
    "create-snapshot/client-gone", "Timeouts", [CREATES, SNAPSHOTS] => |kit| client_gone(kit);
    "delete-snapshot/again", "DeleteSnapshot", [CREATES, SNAPSHOTS] => |kit| delete_again(kit);
    "delete-snapshot/unknown", "DeleteSnapshot", [SNAPSHOTS] => |kit| delete_unknown(kit);
    "delete-snapshot/required-fields", "Error Scheme", [SNAPSHOTS] => |kit| async move {
        kit.refused(DeleteSnapshotRequest::default(), &[Code::InvalidArgument], "snapshot_id is REQUIRED").await
    };
    "list-snapshots/filters", "ListSnapshots", [CREATES, SNAPSHOTS, LISTS] => |kit| filters(kit);
    "list-snapshots/pages", "ListSnapshots", [CREATES, SNAPSHOTS, LISTS] => |kit| pages(kit);
    "list-snapshots/invalid-token", "ListSnapshots Errors", [LISTS] => |kit| async move {
        let starting_token = "conformance: no such token".to_owned();
        let request = ListSnapshotsRequest { starting_token, max_entries: 1, ..Default::default() };
        kit.refused(request, &[Code::Aborted], "the starting_token is not valid").await
    };
    "list-snapshots/negative-max-entries", "ListSnapshots", [LISTS] => |kit| async move {
        let request = ListSnapshotsRequest { max_entries: -1, ..Default::default() };
        kit.refused(request, &[Code::InvalidArgument], "the value of max_entries MUST NOT be negative").await
    };
    "get-snapshot/answer", "GetSnapshot", [CREATES, SNAPSHOTS, GETS] => |kit| get(kit);
    "get-snapshot/not-found", "GetSnapshot Errors", [CREATES, SNAPSHOTS, GETS] => |kit| get_not_found(kit);
    "get-snapshot/required-fields", "Error Scheme", [GETS] => |kit| async move {
        kit.refused(GetSnapshotRequest::default(), &[Code::InvalidArgument], "snapshot_id is REQUIRED").await
    };
}

/// What every snapshot must have.
pub(super) fn check(snapshot: &Snapshot, source: &str) -> Option<&'static str> {
    let ok = [
        (!snapshot.snapshot_id.is_empty(), "a snapshot_id, which is REQUIRED"),
        (snapshot.snapshot_id.len() <= STRING, "a snapshot_id of at most 128 bytes (\"Size Limits\")"),
        (snapshot.source_volume_id == source, "the source_volume_id of the request, which is REQUIRED"),
        (snapshot.creation_time.is_some_and(|time| time.seconds > 0), "a creation_time, which is REQUIRED"),
        (snapshot.size_bytes >= 0, "no negative size_bytes"),
    ];
    ok.into_iter().find(|(holds, _)| !holds).map(|(_, wants)| wants)
}

fn snapshot_of(answered: &Answered<CreateSnapshotRequest>) -> Checked<Snapshot> {
    let snapshot = answered.snapshot.clone().ok_or_else(|| answered.wrong("a snapshot, which is REQUIRED"))?;
    match check(&snapshot, &answered.request.source_volume_id) {
        None => Ok(snapshot),
        Some(wants) => Err(answered.wrong(wants)),
    }
}

async fn answer(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let made = kit.ok(kit.snapshot_request(&volume, "answer")).await?;
    snapshot_of(&made).map(drop)
}

const SAME: &str = "the same snapshot as to the first call, field by field: the call is idempotent";

async fn again(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let request = kit.snapshot_request(&volume, "again");
    let first = snapshot_of(&kit.ok(request.clone()).await?)?;
    // A creation time that is made anew for each answer differs by nanoseconds already, or by a second.
    for _ in 0..2 {
        let second = kit.ok(request.clone()).await?;
        let wants = format!("{SAME}: {first:?}");
        second.must(same_snapshot(&first, &snapshot_of(&second)?), wants)?;
        kit.ready(request.clone()).await?;
    }
    Ok(())
}

async fn other_source(kit: &Kit) -> Checked {
    let (one, two) = (kit.volume("one").await?, kit.volume("two").await?);
    let request = kit.snapshot_request(&one, "other");
    kit.ok(request.clone()).await?;
    let other = CreateSnapshotRequest { source_volume_id: two.volume_id, ..request };
    kit.refused(other, &[Code::AlreadyExists], "a snapshot of this name exists, of another volume").await
}

/// The table has no code for it; that it fails follows from "MUST return a non-ok gRPC code".
async fn unknown_source(kit: &Kit) -> Checked {
    let volume = kit.deleted_volume().await?;
    kit.fails(kit.snapshot_request(&volume, "unknown"), "the source volume does not exist").await
}

async fn required(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let fields: [Field<CreateSnapshotRequest>; 2] =
        [("source_volume_id", |request| request.source_volume_id.clear()), ("name", |request| request.name.clear())];
    kit.required(kit.snapshot_request(&volume, "required"), &fields).await
}

async fn at_once(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let request = kit.snapshot_request(&volume, "at-once");
    let all = join_all((0..4).map(|_| kit.ok_or_refused(request.clone(), &[Code::Aborted], "a call is pending"))).await;
    let last = kit.settled(request).await?;
    let own = snapshot_of(&last)?;
    for answered in all {
        if let Some(answered) = answered? {
            answered.must(same_snapshot(&snapshot_of(&answered)?, &own), format_args!("{SAME}: {own:?}"))?;
        }
    }
    Ok(())
}

async fn client_gone(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    for after in PATIENCE {
        let request = kit.snapshot_request(&volume, "gone");
        kit.abandon(request.clone(), after).await;
        let first = snapshot_of(&kit.settled(request.clone()).await?)?;
        let second = kit.settled(request).await?;
        second.must(same_snapshot(&first, &snapshot_of(&second)?), SAME)?;
    }
    Ok(())
}

fn delete(snapshot: &Snapshot) -> DeleteSnapshotRequest {
    DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() }
}

async fn delete_again(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let snapshot = kit.snapshot(&volume, "again").await?;
    kit.ok(delete(&snapshot)).await?;
    kit.ok(delete(&snapshot)).await?;
    let plugin = kit.plugin();
    if plugin.offers().controller(ControllerRpc::ListSnapshots) {
        let left = all_snapshots(kit, "", 0).await?;
        if left.iter().any(|own| own.snapshot_id == snapshot.snapshot_id) {
            let came = format!("{} among {} snapshots", snapshot.snapshot_id, left.len());
            return Err(Stop::failed("ListSnapshots, after DeleteSnapshot", came, "no snapshot that was deleted"));
        }
    }
    Ok(())
}

async fn delete_unknown(kit: &Kit) -> Checked {
    for id in ["conformance-no-such-snapshot", "../../conformance", "é"] {
        kit.ok(DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() }).await?;
    }
    Ok(())
}

/// All snapshots of a volume (of all for an empty id), in pages of at most `max_entries`.
pub(super) async fn all_snapshots(kit: &Kit, source: &str, max_entries: i32) -> Checked<Vec<Snapshot>> {
    let mut all = Vec::new();
    let mut starting_token = String::new();
    for _ in 0..100_000 {
        let source_volume_id = source.to_owned();
        let request = ListSnapshotsRequest { max_entries, starting_token, source_volume_id, ..Default::default() };
        let mut page = kit.ok(request).await?;
        let most = usize::try_from(max_entries).unwrap_or(0);
        page.must(most == 0 || page.entries.len() <= most, "no more than max_entries entries")?;
        starting_token = std::mem::take(&mut page.answer.next_token);
        all.extend(page.answer.entries.into_iter().filter_map(|entry| entry.snapshot));
        if starting_token.is_empty() {
            return Ok(all);
        }
    }
    Err(Stop::failed("ListSnapshots, page after page", "100000 pages", "an end"))
}

/// "all snapshots on the storage system within the given parameters".
async fn filters(kit: &Kit) -> Checked {
    let (one, two) = (kit.volume("one").await?, kit.volume("two").await?);
    let mut of_one = Vec::new();
    for _ in 0..kit.params().many.max(2) {
        of_one.push(kit.snapshot(&one, "filter").await?);
    }
    let of_two = kit.snapshot(&two, "filter").await?;
    let listed: HashSet<_> = ids(&all_snapshots(kit, &one.volume_id, 0).await?);
    let wanted = ids(&of_one);
    if listed != wanted {
        let sent = format!("ListSnapshots with source_volume_id {}", one.volume_id);
        return Err(Stop::failed(sent, format_args!("{listed:?}"), format_args!("all its snapshots: {wanted:?}")));
    }
    for snapshot in [&of_one[0], &of_one[1], &of_two] {
        let request = ListSnapshotsRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
        let answered = kit.ok(request).await?;
        let found = answered.entries.iter().map(|entry| entry.snapshot.as_ref()).collect::<Vec<_>>();
        let alone = matches!(found[..], [Some(found)] if same_snapshot(found, snapshot));
        answered.must(alone, format_args!("this snapshot alone: {snapshot:?}"))?;
    }
    nothing(kit, ListSnapshotsRequest { snapshot_id: "conformance-none".to_owned(), ..Default::default() }).await?;
    nothing(kit, ListSnapshotsRequest { source_volume_id: "conformance-none".to_owned(), ..Default::default() }).await
}

async fn nothing(kit: &Kit, request: ListSnapshotsRequest) -> Checked {
    let answered = kit.ok(request).await?;
    answered.must(answered.entries.is_empty(), "no entry: there is no such snapshot")
}

fn ids(snapshots: &[Snapshot]) -> HashSet<String> {
    snapshots.iter().map(|snapshot| snapshot.snapshot_id.clone()).collect()
}

/// Nothing changes meanwhile: every snapshot is in exactly one page, with a filter and without.
async fn pages(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let mut made = Vec::new();
    for _ in 0..kit.params().many {
        made.push(kit.snapshot(&volume, "page").await?);
    }
    for (source, max_entries) in [("", 2), (volume.volume_id.as_str(), 1), (volume.volume_id.as_str(), 2)] {
        let listed = all_snapshots(kit, source, max_entries).await?;
        let found = ids(&listed);
        let sent =
            format!("ListSnapshots with max_entries {max_entries}, source_volume_id {source:?}, page after page");
        if found.len() != listed.len() {
            let came = format!("{} entries of {} snapshots", listed.len(), found.len());
            return Err(Stop::failed(sent, came, "each snapshot once: nothing has changed meanwhile"));
        }
        if let Some(lost) = made.iter().find(|own| !found.contains(&own.snapshot_id)) {
            let came = format!("{} snapshots, without {}", found.len(), lost.snapshot_id);
            return Err(Stop::failed(sent, came, "all snapshots within the given parameters"));
        }
    }
    Ok(())
}

async fn get(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let snapshot = kit.snapshot(&volume, "get").await?;
    let request = GetSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    let answered = kit.ok(request).await?;
    answered.must(
        answered.snapshot.as_ref() == Some(&snapshot),
        format_args!("the snapshot as CreateSnapshot told it: {snapshot:?}"),
    )
}

async fn get_not_found(kit: &Kit) -> Checked {
    let volume = kit.volume("source").await?;
    let snapshot = kit.snapshot(&volume, "get").await?;
    kit.ok(delete(&snapshot)).await?;
    let request = GetSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
    kit.refused(request, &[Code::NotFound], "the snapshot does not exist any more").await
}
