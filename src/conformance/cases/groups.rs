//! Group snapshots.

use std::collections::HashSet;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::group_controller_service_capability::rpc::Type as GroupRpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use super::clones::from_snapshot;
use super::create_volume::{PATIENCE, range};
use super::identity::STRING;
use super::snapshots::{all_snapshots, check};
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::{Answered, Field, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::undo::{delete_group, same_group};

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const GROUPS: Need = Need::Group(GroupRpc::CreateDeleteGetVolumeGroupSnapshot);
const LISTS: Need = Need::Controller(ControllerRpc::ListSnapshots);

area! {
    "group/capabilities", "GroupControllerGetCapabilities", [GROUPS] => |kit| async move {
        kit.ok(GroupControllerGetCapabilitiesRequest {}).await.map(drop)
    };
    "group/answer", "CreateVolumeGroupSnapshot", [CREATES, GROUPS] => |kit| answer(kit);
    "group/again", "CreateVolumeGroupSnapshot", [CREATES, GROUPS] => |kit| again(kit);
    "group/again-other-members", "CreateVolumeGroupSnapshot Errors", [CREATES, GROUPS] => |kit| other_members(kit);
    "group/unknown-member", "CreateVolumeGroupSnapshot", [CREATES, GROUPS] => |kit| unknown_member(kit);
    "group/unknown-member-leaks", "CreateVolumeGroupSnapshot" SHOULD, [CREATES, GROUPS, LISTS] => |kit| leaks(kit);
    "group/required-fields", "Error Scheme", [CREATES, GROUPS] => |kit| required(kit);
    "group/client-gone", "Timeouts", [CREATES, GROUPS] => |kit| client_gone(kit);
    "group/get", "GetVolumeGroupSnapshot", [CREATES, GROUPS] => |kit| get(kit);
    "group/get-not-found", "GetVolumeGroupSnapshot Errors", [CREATES, GROUPS] => |kit| get_not_found(kit);
    "group/mismatch", "DeleteVolumeGroupSnapshot Errors" SHOULD, [CREATES, GROUPS] => |kit| mismatch(kit);
    "group/delete-again", "DeleteVolumeGroupSnapshot", [CREATES, GROUPS] => |kit| delete_again(kit);
    "group/delete-unknown", "DeleteVolumeGroupSnapshot", [GROUPS] => |kit| delete_unknown(kit);
    "group/members-listed-and-deleted", "DeleteVolumeGroupSnapshot", [CREATES, GROUPS, LISTS] => |kit| members(kit);
    "group/content", "CreateVolumeGroupSnapshot", [CREATES, GROUPS, Need::Content] => |kit| holds(kit);
}

async fn request(kit: &Kit) -> Checked<CreateVolumeGroupSnapshotRequest> {
    let (one, two) = (kit.volume("one").await?, kit.volume("two").await?);
    Ok(of(kit, &[&one, &two]))
}

fn of(kit: &Kit, volumes: &[&Volume]) -> CreateVolumeGroupSnapshotRequest {
    CreateVolumeGroupSnapshotRequest {
        name: kit.name("group"),
        source_volume_ids: volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
        parameters: kit.params().group_snapshot_parameters.clone(),
        ..Default::default()
    }
}

/// The group of an answer, with what every group must have.
fn group_of(answered: &Answered<CreateVolumeGroupSnapshotRequest>) -> Checked<VolumeGroupSnapshot> {
    let none = || answered.wrong("a group_snapshot, which is REQUIRED");
    let group = answered.group_snapshot.clone().ok_or_else(none)?;
    answered.must(!group.group_snapshot_id.is_empty(), "a group_snapshot_id, which is REQUIRED")?;
    answered.must(group.group_snapshot_id.len() <= STRING, "a group_snapshot_id of at most 128 bytes")?;
    let taken = group.creation_time.is_some_and(|time| time.seconds > 0);
    answered.must(taken, "a creation_time, which is REQUIRED")?;
    let sources: HashSet<_> = group.snapshots.iter().map(|own| own.source_volume_id.as_str()).collect();
    let wanted: HashSet<_> = answered.request.source_volume_ids.iter().map(String::as_str).collect();
    let each = sources == wanted && group.snapshots.len() == wanted.len();
    answered.must(each, "one snapshot of each of source_volume_ids")?;
    for snapshot in &group.snapshots {
        if let Some(wants) = check(snapshot, &snapshot.source_volume_id) {
            return Err(answered.wrong(wants));
        }
        let wants = "the group_snapshot_id of the message in each of its snapshots";
        answered.must(snapshot.group_snapshot_id == group.group_snapshot_id, wants)?;
    }
    let all_ready = group.snapshots.iter().all(|own| own.ready_to_use);
    answered.must(!group.ready_to_use || all_ready, "ready_to_use false while a snapshot of the group is not")?;
    Ok(group)
}

async fn create(kit: &Kit) -> Checked<VolumeGroupSnapshot> {
    group_of(&kit.ok(request(kit).await?).await?)
}

async fn answer(kit: &Kit) -> Checked {
    create(kit).await.map(drop)
}

const SAME: &str = "the same group snapshot as before: it MUST only be created once";

async fn again(kit: &Kit) -> Checked {
    let request = request(kit).await?;
    let first = group_of(&kit.ok(request.clone()).await?)?;
    let second = kit.ok(request).await?;
    second.must(same_group(&first, &group_of(&second)?), format_args!("{SAME}: {first:?}"))
}

async fn other_members(kit: &Kit) -> Checked {
    let mut request = request(kit).await?;
    kit.ok(request.clone()).await?;
    request.source_volume_ids.pop();
    kit.refused(request, &[Code::AlreadyExists], "a group snapshot of this name exists, of other volumes").await
}

/// "SP MUST return an error".
async fn unknown_member(kit: &Kit) -> Checked {
    let (one, gone) = (kit.volume("one").await?, kit.deleted_volume().await?);
    kit.fails(of(kit, &[&one, &gone]), "one of source_volume_ids does not exist").await
}

/// "SP SHOULD also do clean up and make sure no snapshots are leaked."
async fn leaks(kit: &Kit) -> Checked {
    let (one, gone) = (kit.volume("one").await?, kit.deleted_volume().await?);
    kit.fails(of(kit, &[&one, &gone]), "one of source_volume_ids does not exist").await?;
    let left = all_snapshots(kit, &one.volume_id, 0).await?;
    if left.is_empty() {
        return Ok(());
    }
    let wants = "no snapshot that is leaked by a group that failed";
    Err(Stop::failed("ListSnapshots of a member", format_args!("{left:?}"), wants))
}

async fn required(kit: &Kit) -> Checked {
    let fields: [Field<CreateVolumeGroupSnapshotRequest>; 2] =
        [("name", |request| request.name.clear()), ("source_volume_ids", |request| request.source_volume_ids.clear())];
    kit.required(request(kit).await?, &fields).await?;
    let group = create(kit).await?;
    let fields: [Field<GetVolumeGroupSnapshotRequest>; 1] =
        [("group_snapshot_id", |request| request.group_snapshot_id.clear())];
    kit.required(get_request(&group), &fields).await?;
    let fields: [Field<DeleteVolumeGroupSnapshotRequest>; 1] =
        [("group_snapshot_id", |request| request.group_snapshot_id.clear())];
    kit.required(delete_group(&group), &fields).await
}

async fn client_gone(kit: &Kit) -> Checked {
    for after in PATIENCE {
        let request = request(kit).await?;
        kit.abandon(request.clone(), after).await;
        let first = group_of(&kit.settled(request.clone()).await?)?;
        let second = kit.settled(request).await?;
        second.must(same_group(&first, &group_of(&second)?), format_args!("{SAME}: {first:?}"))?;
    }
    Ok(())
}

fn get_request(group: &VolumeGroupSnapshot) -> GetVolumeGroupSnapshotRequest {
    GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: group.snapshots.iter().map(|own| own.snapshot_id.clone()).collect(),
        ..Default::default()
    }
}

async fn get(kit: &Kit) -> Checked {
    let group = create(kit).await?;
    let got = kit.ok(get_request(&group)).await?;
    let holds = got.group_snapshot.as_ref().is_some_and(|own| same_group(own, &group));
    got.must(holds, format_args!("the group snapshot as it was created: {group:?}"))
}

async fn get_not_found(kit: &Kit) -> Checked {
    let group = create(kit).await?;
    kit.ok(delete_group(&group)).await?;
    kit.refused(get_request(&group), &[Code::NotFound], "the group snapshot does not exist any more").await
}

/// "it SHOULD check this field and report an error if it has the ability to detect a mismatch."
async fn mismatch(kit: &Kit) -> Checked {
    let group = create(kit).await?;
    let other = || vec!["conformance-no-such-snapshot".to_owned()];
    let why = "snapshot_ids are not those of the group";
    let get = GetVolumeGroupSnapshotRequest { snapshot_ids: other(), ..get_request(&group) };
    kit.refused(get, &[Code::InvalidArgument], why).await?;
    let delete = DeleteVolumeGroupSnapshotRequest { snapshot_ids: other(), ..delete_group(&group) };
    kit.refused(delete, &[Code::InvalidArgument], why).await
}

async fn delete_again(kit: &Kit) -> Checked {
    let group = create(kit).await?;
    kit.ok(delete_group(&group)).await?;
    kit.ok(delete_group(&group)).await.map(drop)
}

async fn delete_unknown(kit: &Kit) -> Checked {
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: "conformance-no-such-group".to_owned(),
        snapshot_ids: vec!["conformance-no-such-snapshot".to_owned()],
        ..Default::default()
    };
    kit.ok(request).await.map(drop)
}

/// "This operation will delete a volume group snapshot as well as all individual snapshots that are part of" it.
async fn members(kit: &Kit) -> Checked {
    let group = create(kit).await?;
    let ids: HashSet<_> = group.snapshots.iter().map(|own| own.snapshot_id.clone()).collect();
    let among = |listed: Vec<Snapshot>| {
        let listed = listed.into_iter().map(|own| own.snapshot_id);
        listed.filter(|id| ids.contains(id)).collect::<HashSet<_>>()
    };
    let listed = among(all_snapshots(kit, "", 0).await?);
    if listed != ids {
        let wants = format!("all snapshots, regardless of how they were created: {ids:?}");
        return Err(Stop::failed("ListSnapshots, after CreateVolumeGroupSnapshot", format_args!("{listed:?}"), wants));
    }
    kit.ok(delete_group(&group)).await?;
    let left = among(all_snapshots(kit, "", 0).await?);
    if left.is_empty() {
        return Ok(());
    }
    let wants = "no individual snapshot of a group that was deleted";
    Err(Stop::failed("ListSnapshots, after DeleteVolumeGroupSnapshot", format_args!("{left:?}"), wants))
}

/// Each member can be restored, and holds what its volume held.
async fn holds(kit: &Kit) -> Checked {
    let kind = kit.kind();
    let mut volumes = Vec::new();
    for seed in [30, 31] {
        let volume = kit.create(kit.request_for("member", kind)).await?;
        kit.fill(&volume, kind, seed).await?;
        volumes.push((volume, seed));
    }
    let request = of(kit, &volumes.iter().map(|(volume, _)| volume).collect::<Vec<_>>());
    let group = ready(kit, request).await?;
    for (volume, seed) in &volumes {
        kit.fill(volume, kind, seed + 10).await?;
        let snapshot = group.snapshots.iter().find(|own| own.source_volume_id == volume.volume_id);
        let request = CreateVolumeRequest {
            volume_content_source: snapshot.and_then(from_snapshot),
            capacity_range: range(volume.capacity_bytes.max(kit.params().size()), 0),
            ..kit.request_for("restored", kind)
        };
        let made = kit.create(request).await?;
        kit.holds(&made, kind, *seed, "what the member held when the group snapshot was taken").await?;
        kit.delete_volume(made.volume_id).await?;
    }
    Ok(())
}

async fn ready(kit: &Kit, request: CreateVolumeGroupSnapshotRequest) -> Checked<VolumeGroupSnapshot> {
    let start = std::time::Instant::now();
    loop {
        let answered = kit.ok(request.clone()).await?;
        let group = group_of(&answered)?;
        if group.snapshots.iter().all(|own| own.ready_to_use) {
            return Ok(group);
        }
        answered.must(start.elapsed().as_secs() < 600, "ready_to_use within ten minutes, once it is processed")?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
