//! What the host says of its calls: in its log and in its metrics.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, Need, Setup, can_run, create, mount, wait_until};
use serde_json::Value;
use tonic::Code;

use crate::{DUNNAGE, IMAGE, refused, rig};

/// The lines of the log of this RPC.
fn lines(log: &str, rpc: &str) -> Vec<Value> {
    let all = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|line| line["span"]["rpc"] == rpc).collect()
}

#[test]
fn errors_of_two_volumes_are_two_lines_with_their_ids() -> Result<()> {
    if !can_run("errors_of_two_volumes_are_two_lines_with_their_ids", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("disks", "image", "")?.set("log", "json").start(DUNNAGE)?;
    let client = host.client(IMAGE)?;
    let ids: Vec<String> = ["a", "b"]
        .map(|name| client.create_volume(create(name, 16 * MIB, mount())).map(|made| made.volume.unwrap().volume_id))
        .into_iter()
        .collect::<Result<_, _>>()?;
    for id in ids.iter().flat_map(|id| [id, id, id]) {
        let stats = csi::NodeGetVolumeStatsRequest {
            volume_id: id.clone(),
            volume_path: "/not/there".into(),
            ..Default::default()
        };
        refused("stats", client.node_get_volume_stats(stats), Code::NotFound, &[])?;
    }
    for name in ["c", "d", "c", "d"] {
        let request = create(name, -1, mount());
        refused("create", client.create_volume(request), Code::InvalidArgument, &["required_bytes"])?;
    }
    let log = host.log();
    let logged: Vec<_> =
        lines(&log, "NodeGetVolumeStats").iter().map(|line| line["span"]["volume_id"].clone()).collect();
    ensure!(logged == [ids[0].as_str(), ids[1].as_str()], "{logged:?} in {log}");
    let logged: Vec<_> = lines(&log, "CreateVolume").iter().map(|line| line["span"]["volume_name"].clone()).collect();
    ensure!(logged == ["c", "d"], "{logged:?} in {log}");
    Ok(())
}

#[test]
fn no_text_of_a_client_fills_the_log() -> Result<()> {
    let Some(rig) = rig("no_text_of_a_client_fills_the_log")? else { return Ok(()) };
    let client = &rig.disks;
    let volume = rig.volume(client, "a", mount())?;
    let (long, path) = ("x".repeat(100_000), format!("/{}", "x".repeat(100_000)));
    let invalid = Code::InvalidArgument;
    let publish = csi::NodePublishVolumeRequest { target_path: path.clone(), ..volume.publish() };
    refused("target", client.node_publish_volume(publish), invalid, &["target_path", "4095"])?;
    let relative = csi::NodePublishVolumeRequest { target_path: long.clone(), ..volume.publish() };
    refused("relative", client.node_publish_volume(relative), invalid, &["target_path", "4095"])?;
    let stage = csi::NodeStageVolumeRequest { staging_target_path: path.clone(), ..volume.stage() };
    refused("staging", client.node_stage_volume(stage), invalid, &["staging_target_path", "4095"])?;
    let unpublish = csi::NodeUnpublishVolumeRequest { target_path: path.clone(), ..volume.unpublish() };
    refused("unpublish", client.node_unpublish_volume(unpublish), invalid, &["4095"])?;
    let stats = csi::NodeGetVolumeStatsRequest { volume_path: path.clone(), ..volume.stats() };
    refused("stats", client.node_get_volume_stats(stats), invalid, &["4095"])?;
    let grow = csi::NodeExpandVolumeRequest { volume_path: path.clone(), ..volume.expand_on_node(MIB) };
    refused("expand", client.node_expand_volume(grow), invalid, &["4095"])?;
    refused("name", client.create_volume(create(&long, MIB, mount())), invalid, &["128"])?;
    for key in ["backend", "csi.storage.k8s.io/fstype", "colour"] {
        let parameters = [(key.to_owned(), "x".repeat(4000))].into();
        let request = csi::CreateVolumeRequest { parameters, ..create("b", MIB, mount()) };
        refused(key, client.create_volume(request), invalid, &[])?;
    }
    let list = csi::ListVolumesRequest { starting_token: long.clone(), ..Default::default() };
    refused("token", client.list_volumes(list), Code::Aborted, &["starting_token"])?;
    let log = rig.host.log();
    let longest = log.lines().max_by_key(|line| line.len()).context("nothing was logged")?;
    ensure!(longest.len() < 8 << 10, "a line of {} bytes: {}...", longest.len(), &longest[..200]);
    Ok(())
}

#[test]
fn calls_are_counted_in_what_they_wait_for() -> Result<()> {
    if !can_run("calls_are_counted_in_what_they_wait_for", &[Need::Root])? {
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let setup = Setup::new()?.backend("disks", "image", "")?.set("telemetry", &format!("{{listen: '{port}'}}"));
    let host = setup.start(DUNNAGE)?;
    host.client(IMAGE)?.create_volume(create("a", 16 * MIB, mount()))?;
    wait_until("the call to be counted", Duration::from_secs(60), || {
        let metrics = dunnage_test_common::get(port, "/metrics")?;
        let count = metrics.lines().find_map(|line| {
            line.strip_prefix("dunnage_operation_wait_seconds_count{backend=\"disks\"} ")?.parse::<u64>().ok()
        });
        Ok(count.is_some_and(|count| count > 0))
    })
}
