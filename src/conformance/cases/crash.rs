//! A plugin that is killed between calls and within them. Calls may be repeated, and continue where they were left.

use std::time::{Duration, Instant};

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::group_controller_service_capability::rpc::Type as GroupRpc;
use dunnage_csi_proto::csi::v1::*;

use super::create_volume::from_volume;
use super::lists::all_volumes;
use super::node::gone;
use super::snapshots::all_snapshots;
use crate::conformance::Kind;
use crate::conformance::content;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::{Answered, Kit};
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::undo::Tracked;
use crate::conformance::using::volume_of;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const SNAPSHOTS: Need = Need::Controller(ControllerRpc::CreateDeleteSnapshot);
const CLONES: Need = Need::Controller(ControllerRpc::CloneVolume);
const EXPANDS: Need = Need::Controller(ControllerRpc::ExpandVolume);
const GROUPS: Need = Need::Group(GroupRpc::CreateDeleteGetVolumeGroupSnapshot);
const MOUNT: Need = Need::Uses(Kind::Mount);
const BLOCK: Need = Need::Uses(Kind::Block);

area! {
    "crash/between-calls", "Timeouts", [Need::Start, CREATES] => |kit| between(kit);
    "crash/between-snapshots", "Timeouts", [Need::Start, CREATES, SNAPSHOTS] => |kit| between_snapshots(kit);
    "crash/mount/between-node-calls", "Timeouts", [Need::Start, CREATES, Need::Mounts, MOUNT]
        => |kit| between_node(kit, Kind::Mount);
    "crash/block/between-node-calls", "Timeouts", [Need::Start, CREATES, Need::Mounts, BLOCK]
        => |kit| between_node(kit, Kind::Block);
    "crash/within-create", "Timeouts", [Need::Start, CREATES] => |kit| within_create(kit);
    "crash/within-delete", "Timeouts", [Need::Start, CREATES] => |kit| within_delete(kit);
    "crash/within-expand", "Timeouts", [Need::Start, CREATES, EXPANDS] => |kit| within_expand(kit);
    "crash/within-clone", "Timeouts", [Need::Start, CREATES, CLONES] => |kit| within_clone(kit);
    "crash/within-snapshot", "Timeouts", [Need::Start, CREATES, SNAPSHOTS] => |kit| within_snapshot(kit);
    "crash/within-group", "Timeouts", [Need::Start, CREATES, GROUPS] => |kit| within_group(kit);
    "crash/mount/within-node-calls", "Timeouts", [Need::Start, CREATES, Need::Mounts, MOUNT]
        => |kit| within_node(kit, Kind::Mount);
    "crash/block/within-node-calls", "Timeouts", [Need::Start, CREATES, Need::Mounts, BLOCK]
        => |kit| within_node(kit, Kind::Block);
}

impl Kit {
    /// SIGKILL, and the plugin anew.
    async fn kill(&self) -> Checked {
        let Some(started) = self.started() else { return Ok(()) };
        started.kill().map_err(|error| Stop::local("cannot kill the plugin", error))?;
        match started.restart().await {
            Ok(plugin) => {
                self.replace_plugin(plugin);
                Ok(())
            }
            Err(error) => {
                let came = format!("{error}; it printed: {}", started.last_words());
                Err(Stop::failed("SIGKILL, and the command of --start again", came, "a plugin that serves again"))
            }
        }
    }

    /// Sends a request, kills the plugin after a while, and gives what is answered to the same request afterwards.
    async fn killed_within<C: Tracked>(&self, request: C, within: Duration) -> Checked<Answered<C>> {
        let bound = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let after = Duration::from_micros(self.chance.below(bound));
        let Some(started) = self.started() else { return self.settled(request).await };
        request.unanswered().into_iter().for_each(|undo| self.note(undo));
        let killing = async {
            tokio::time::sleep(after).await;
            started.kill().map_err(|error| Stop::local("cannot kill the plugin", error))
        };
        let (answered, killed) = tokio::join!(self.send(request.clone()), killing);
        killed?;
        self.kill().await?;
        let again = self.settled(request).await?;
        match answered {
            Ok(first) => again.same_as(&first, "after a kill, what was answered before it").map(|()| again),
            Err(_) => Ok(again),
        }
    }

    /// How long a request takes, with a margin, so that kills fall into all of it.
    async fn timed<C: Tracked>(&self, request: C) -> Checked<(Answered<C>, Duration)> {
        let start = Instant::now();
        let answered = self.ok(request).await?;
        Ok((answered, start.elapsed() * 3 / 2 + Duration::from_micros(200)))
    }

    fn kills(&self) -> usize {
        self.params().kills
    }
}

const AGAIN: &str = "after a kill, the same answer as before it";

async fn between(kit: &Kit) -> Checked {
    let request = kit.request("between");
    let made = kit.ok(request.clone()).await?;
    kit.kill().await?;
    kit.ok(request.clone()).await?.same_as(&made.answer, AGAIN)?;
    let volume = volume_of(&made)?;
    if kit.plugin().offers().expands() {
        let grow = super::expand::request(kit, &volume, kit.params().larger());
        let grown = kit.ok(grow.clone()).await?;
        kit.kill().await?;
        let again = kit.ok(grow).await?;
        again.must(again.capacity_bytes == grown.capacity_bytes, AGAIN)?;
    }
    once(kit, &volume).await?;
    kit.delete_volume(volume.volume_id.clone()).await?;
    kit.kill().await?;
    kit.delete_volume(volume.volume_id.clone()).await?;
    never(kit, &volume).await
}

/// The volume is listed once, if there is a list.
async fn once(kit: &Kit, volume: &Volume) -> Checked {
    listed(kit, volume, 1).await
}

async fn never(kit: &Kit, volume: &Volume) -> Checked {
    listed(kit, volume, 0).await
}

async fn listed(kit: &Kit, volume: &Volume, wanted: usize) -> Checked {
    if !kit.plugin().offers().controller(ControllerRpc::ListVolumes) {
        return Ok(());
    }
    let all = all_volumes(kit, 0).await?;
    let found = all.iter().filter(|own| own.volume_id == volume.volume_id).count();
    if found == wanted {
        return Ok(());
    }
    let came = format!("{} is there {found} times", volume.volume_id);
    Err(Stop::failed("ListVolumes, after a kill", came, format_args!("it there {wanted} times")))
}

/// How many volumes and snapshots there are, where they can be listed.
async fn counts(kit: &Kit) -> Checked<(Option<usize>, Option<usize>)> {
    let plugin = kit.plugin();
    let offers = plugin.offers();
    let volumes = match offers.controller(ControllerRpc::ListVolumes) {
        true => Some(all_volumes(kit, 0).await?.len()),
        false => None,
    };
    let snapshots = match offers.controller(ControllerRpc::ListSnapshots) {
        true => Some(all_snapshots(kit, "", 0).await?.len()),
        false => None,
    };
    Ok((volumes, snapshots))
}

/// After all is taken back, there is what there was before.
async fn as_before(kit: &Kit, before: (Option<usize>, Option<usize>)) -> Checked {
    let left = kit.undo_all().await;
    let now = counts(kit).await?;
    if left.is_empty() && now == before {
        return Ok(());
    }
    let came = format!("{now:?} volumes and snapshots {}", left.join("; "));
    let wants = format!("{before:?}, as before: nothing lost, doubled or left by a kill within a call");
    Err(Stop::failed("everything deleted that was made, and lists", came, wants))
}

async fn between_snapshots(kit: &Kit) -> Checked {
    let volume = kit.volume("between").await?;
    let request = kit.snapshot_request(&volume, "between");
    let made = kit.ready(request.clone()).await?;
    kit.kill().await?;
    let again = kit.ok(request).await?;
    again.must(again.snapshot.as_ref() == Some(&made), format_args!("{AGAIN}: {made:?}"))?;
    let delete = DeleteSnapshotRequest { snapshot_id: made.snapshot_id, ..Default::default() };
    kit.ok(delete.clone()).await?;
    kit.kill().await?;
    kit.ok(delete).await.map(drop)
}

/// Killed after each step of a life: what is published stays usable, and can be taken away.
async fn between_node(kit: &Kit, kind: Kind) -> Checked {
    let volume = kit.create(kit.request_for("between", kind)).await?;
    kit.kill().await?;
    let used = kit.bring(&volume, kind).await?;
    kit.kill().await?;
    if let Some(request) = used.stage_request(kit) {
        kit.ok(request).await?;
    }
    let target = kit.publish(&used, "pod").await?;
    content::write(&target, kind, 50).await?;
    kit.kill().await?;
    content::compare(&target, kind, 50, "a published volume that outlives its plugin").await?;
    kit.ok(used.publish_request(kit, "pod").await?).await?;
    let mounts = used.mounts("pod").await?;
    if mounts > 1 {
        let came = format!("{mounts} mounts at the target");
        return Err(Stop::failed("NodePublishVolume again, after a kill", came, "no second mount"));
    }
    kit.unpublish(&used, "pod").await?;
    gone(&target).await?;
    kit.kill().await?;
    kit.unpublish(&used, "pod").await?;
    kit.take(&used).await?;
    kit.kill().await?;
    kit.take(&used).await?;
    kit.holds(&volume, kind, 50, "what was written before the kills").await
}

async fn within_create(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let (_, within) = kit.timed(kit.request("timed")).await?;
    for _ in 0..kit.kills() {
        let request = kit.request("within");
        let first = kit.killed_within(request.clone(), within).await?;
        kit.ok(request).await?.same_as(&first.answer, AGAIN)?;
        if Need::Content.lack(kit).is_none() {
            let volume = volume_of(&first)?;
            kit.fill(&volume, kit.kind(), 53).await?;
            kit.holds(&volume, kit.kind(), 53, "in a volume whose making was killed, what was written").await?;
        }
    }
    as_before(kit, before).await
}

async fn within_delete(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let delete = |volume: Volume| DeleteVolumeRequest { volume_id: volume.volume_id, ..Default::default() };
    let (_, within) = kit.timed(delete(kit.volume("timed").await?)).await?;
    for _ in 0..kit.kills() {
        let create = kit.request("within");
        let volume = kit.create(create).await?;
        kit.killed_within(delete(volume.clone()), within).await?;
        never(kit, &volume).await?;
    }
    as_before(kit, before).await
}

async fn within_expand(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let larger = kit.params().larger();
    let (_, within) = kit.timed(super::expand::request(kit, &kit.volume("timed").await?, larger)).await?;
    for _ in 0..kit.kills() {
        let volume = kit.volume("within").await?;
        let grown = kit.killed_within(super::expand::request(kit, &volume, larger), within).await?;
        grown.must(grown.capacity_bytes >= larger, "after a kill, the capacity after expansion")?;
        once(kit, &volume).await?;
    }
    as_before(kit, before).await
}

async fn within_clone(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let kind = kit.kind();
    let source = kit.create(kit.request_for("source", kind)).await?;
    let content = Need::Content.lack(kit).is_none();
    if content {
        kit.fill(&source, kind, 51).await?;
    }
    let request = || CreateVolumeRequest {
        volume_content_source: from_volume(&source),
        capacity_range: super::create_volume::range(source.capacity_bytes.max(kit.params().size()), 0),
        ..kit.request_for("copy", kind)
    };
    let (_, within) = kit.timed(request()).await?;
    for _ in 0..kit.kills() {
        let made = kit.killed_within(request(), within).await?;
        let volume = volume_of(&made)?;
        if content {
            kit.holds(&volume, kind, 51, "in a clone whose making was killed, what its source held").await?;
        }
        kit.delete_volume(volume.volume_id).await?;
    }
    as_before(kit, before).await
}

async fn within_snapshot(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let volume = kit.volume("source").await?;
    let (_, within) = kit.timed(kit.snapshot_request(&volume, "timed")).await?;
    for round in 0..kit.kills() {
        let request = kit.snapshot_request(&volume, "within");
        kit.killed_within(request.clone(), within).await?;
        let snapshot = kit.ready(request).await?;
        if round % 2 == 0 {
            let delete = DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
            kit.killed_within(delete, within).await?;
        }
    }
    as_before(kit, before).await
}

async fn within_group(kit: &Kit) -> Checked {
    let before = counts(kit).await?;
    let (one, two) = (kit.volume("one").await?, kit.volume("two").await?);
    let request = || CreateVolumeGroupSnapshotRequest {
        name: kit.name("within"),
        source_volume_ids: vec![one.volume_id.clone(), two.volume_id.clone()],
        parameters: kit.params().group_snapshot_parameters.clone(),
        ..Default::default()
    };
    let (_, within) = kit.timed(request()).await?;
    for _ in 0..kit.kills() {
        kit.killed_within(request(), within).await?;
    }
    as_before(kit, before).await
}

/// Stage, publish, unpublish and unstage, each killed at some moment and repeated.
async fn within_node(kit: &Kit, kind: Kind) -> Checked {
    use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
    let volume = kit.create(kit.request_for("within", kind)).await?;
    kit.fill(&volume, kind, 52).await?;
    let start = Instant::now();
    kit.holds(&volume, kind, 52, "what was written").await?;
    let within = start.elapsed() / 3;
    for round in 0..kit.kills() {
        let used = kit.attach(&volume, kind, Mode::SingleNodeWriter).await?;
        if let Some(request) = used.stage_request(kit) {
            if round % 4 == 0 { drop(kit.killed_within(request, within).await?) } else { drop(kit.ok(request).await?) }
        }
        let publish = used.publish_request(kit, "pod").await?;
        let published = match round % 4 {
            1 => kit.killed_within(publish, within).await?,
            _ => kit.ok(publish).await?,
        };
        let target = used.target("pod");
        used.is_at(&target, &published).await?;
        content::compare(&target, kind, 52, "after a kill, what was written before").await?;
        let unpublish = used.unpublish_request("pod");
        if round % 4 == 2 {
            drop(kit.killed_within(unpublish, within).await?)
        } else {
            drop(kit.ok(unpublish).await?)
        }
        gone(&target).await?;
        match used.unstage_request() {
            Some(request) if round % 4 == 3 => drop(kit.killed_within(request, within).await?),
            _ => {}
        }
        kit.take(&used).await?;
    }
    Ok(())
}
