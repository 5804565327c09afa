//! Nothing is left.

use std::collections::BTreeSet;
use std::fs;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;

use super::lists::all_volumes;
use super::snapshots::all_snapshots;
use crate::client::blocking;
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::mounts;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

area! {
    "end/volumes", "DeleteVolume", [Need::Controller(ControllerRpc::ListVolumes)] => |kit| volumes(kit);
    "end/snapshots", "DeleteSnapshot", [Need::Controller(ControllerRpc::ListSnapshots)] => |kit| snapshots(kit);
    "end/mounts", "NodeUnpublishVolume", [Need::Mounts] => |kit| left_mounts(kit);
    "end/folders", "NodeUnpublishVolume", [Need::Mounts] => |kit| folders(kit);
}

/// What was there before the first case.
#[derive(Debug, Default)]
pub(in crate::conformance) struct Before {
    volumes: BTreeSet<String>,
    snapshots: BTreeSet<String>,
}

impl Before {
    /// Lists it, where the plugin can. What goes wrong here is told by the cases about lists.
    pub(in crate::conformance) async fn look(kit: &Kit) -> Self {
        let plugin = kit.plugin();
        let mut before = Self::default();
        if plugin.offers().controller(ControllerRpc::ListVolumes) {
            before.volumes = volume_ids(kit).await.unwrap_or_default();
        }
        if plugin.offers().controller(ControllerRpc::ListSnapshots) {
            before.snapshots = snapshot_ids(kit).await.unwrap_or_default();
        }
        before
    }
}

async fn volume_ids(kit: &Kit) -> Checked<BTreeSet<String>> {
    Ok(all_volumes(kit, 0).await?.into_iter().map(|volume| volume.volume_id).collect())
}

async fn snapshot_ids(kit: &Kit) -> Checked<BTreeSet<String>> {
    Ok(all_snapshots(kit, "", 0).await?.into_iter().map(|snapshot| snapshot.snapshot_id).collect())
}

fn same(rpc: &str, before: &BTreeSet<String>, now: &BTreeSet<String>) -> Checked {
    let left: Vec<_> = now.difference(before).collect();
    let lost: Vec<_> = before.difference(now).collect();
    if left.is_empty() && lost.is_empty() {
        return Ok(());
    }
    let came = format!("left: {left:?}, lost: {lost:?}");
    Err(Stop::failed(format_args!("{rpc}, after all else"), came, "the same list as before the first case"))
}

async fn volumes(kit: &Kit) -> Checked {
    same("ListVolumes", &kit.before.volumes, &volume_ids(kit).await?)
}

async fn snapshots(kit: &Kit) -> Checked {
    same("ListSnapshots", &kit.before.snapshots, &snapshot_ids(kit).await?)
}

/// "This RPC MUST undo the work by the corresponding `NodePublishVolume`."
async fn left_mounts(kit: &Kit) -> Checked {
    let left = blocking("cannot list the mounts below", kit.folder(), mounts::beneath).await?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Stop::failed("(look at the mounts of this process)", format_args!("{left:?}"), "no mount that is left"))
}

/// "The SP MUST delete the file or directory it created at this path."
async fn folders(kit: &Kit) -> Checked {
    let left = blocking("cannot list", kit.folder(), |folder| {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let left = left.await?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Stop::failed("(look into the folder of all paths)", format_args!("{left:?}"), "no path that is left"))
}
