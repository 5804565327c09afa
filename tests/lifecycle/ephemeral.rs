//! Volumes that live as long as their pod.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Client, Host, MIB, Need, Setup, can_run, create, loop_devices_beneath, mount, mounts_beneath,
};
use tonic::Code;

use crate::{DIR, DUNNAGE, IMAGE, is};

const ALLOWED: &str = "ephemeral: {max_size: 64Mi}";

fn inline(host: &Host, handle: &str, attributes: &[(&str, &str)]) -> csi::NodePublishVolumeRequest {
    let own = [("csi.storage.k8s.io/ephemeral", "true"), ("csi.storage.k8s.io/pod.name", "web-0")];
    csi::NodePublishVolumeRequest {
        volume_id: handle.into(),
        target_path: host.setup().scratch().path().join("pods").join(handle).display().to_string(),
        volume_capability: Some(mount()),
        volume_context: own.iter().chain(attributes).map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..Default::default()
    }
}

fn unpublish(request: &csi::NodePublishVolumeRequest) -> csi::NodeUnpublishVolumeRequest {
    csi::NodeUnpublishVolumeRequest { volume_id: request.volume_id.clone(), target_path: request.target_path.clone() }
}

fn count(client: &Client) -> Result<usize> {
    Ok(client.list_volumes(Default::default())?.entries.len())
}

#[test]
fn an_inline_volume_is_refused_unless_the_admin_allows_it() -> Result<()> {
    if !can_run("an_inline_volume_is_refused_unless_the_admin_allows_it", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)?;
    let client = host.client(DIR)?;
    let message = is("off", client.node_publish_volume(inline(&host, "csi-1", &[])), Code::FailedPrecondition)?;
    ensure!(message.contains("ephemeral:"), "{message}");
    ensure!(count(&client)? == 0, "it was made");
    Ok(())
}

#[test]
fn a_pod_gets_only_what_is_allowed() -> Result<()> {
    if !can_run("a_pod_gets_only_what_is_allowed", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", &format!("quota: none\n{ALLOWED}"))?.start(DUNNAGE)?;
    let client = host.client(DIR)?;
    for (case, attributes, word) in [
        ("more", &[("size", "134217728")][..], "67108864"),
        ("no number", &[("size", "64Mi")], "64Mi"),
        ("negative", &[("size", "-1")], "-1"),
        ("a parameter", &[("mode", "0777")], "mode"),
        ("another backend", &[("backend", "other")], "other"),
        ("a path", &[("root", "/etc")], "root"),
    ] {
        let message = is(case, client.node_publish_volume(inline(&host, "csi-1", attributes)), Code::InvalidArgument)?;
        ensure!(message.contains(word), "{message}");
    }
    ensure!(count(&client)? == 0, "a refused volume was made");
    Ok(())
}

#[test]
fn an_inline_volume_lives_as_long_as_its_pod_across_restarts() -> Result<()> {
    if !can_run("an_inline_volume_lives_as_long_as_its_pod_across_restarts", &[Need::Root])? {
        return Ok(());
    }
    for (name, driver, rest) in [(DIR, "dir", "quota: none\n"), (IMAGE, "image", "")] {
        let backend = name.split('.').next().unwrap();
        let mut host = Setup::new()?.backend(backend, driver, &format!("{rest}{ALLOWED}"))?.start(DUNNAGE)?;
        let request = inline(&host, "csi-1", &[("size", "33554432")]);
        let mut client = host.client(name)?;
        client.node_publish_volume(request.clone())?;
        fs::write(format!("{}/data", request.target_path), "data")?;
        host.restart()?;
        client = host.client(name)?;
        client.node_publish_volume(request.clone())?;
        assert_eq!(fs::read_to_string(format!("{}/data", request.target_path))?, "data", "{driver}");
        assert_eq!(count(&client)?, 1, "{driver}");
        host.restart()?;
        client = host.client(name)?;
        client.node_unpublish_volume(unpublish(&request))?;
        client.node_unpublish_volume(unpublish(&request))?;
        assert_eq!(count(&client)?, 0, "{driver}");
        let folder = host.setup().scratch().path();
        ensure!(mounts_beneath(folder)?.is_empty() && loop_devices_beneath(folder).is_empty(), "something is left");
    }
    Ok(())
}

#[test]
fn unpublish_deletes_nothing_without_the_mark_of_this_node() -> Result<()> {
    if !can_run("unpublish_deletes_nothing_without_the_mark_of_this_node", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", &format!("quota: none\n{ALLOWED}"))?.start(DUNNAGE)?;
    let client = host.client(DIR)?;
    // A claim's volume whose name a pod's handle could be.
    client.create_volume(create("csi-1", MIB, mount()))?;
    let request = inline(&host, "csi-1", &[]);
    client.node_unpublish_volume(unpublish(&request))?;
    assert_eq!(count(&client)?, 1);
    // Nor does a publish take it.
    is("taken", client.node_publish_volume(request.clone()), Code::AlreadyExists)?;
    client.node_unpublish_volume(unpublish(&request))?;
    assert_eq!(count(&client)?, 1, "the volume of a claim was deleted");
    // Of an inline volume another target is not the word of its pod.
    let own = inline(&host, "csi-2", &[]);
    client.node_publish_volume(own.clone())?;
    let elsewhere = csi::NodeUnpublishVolumeRequest { target_path: format!("{}x", own.target_path), ..unpublish(&own) };
    client.node_unpublish_volume(elsewhere)?;
    assert_eq!(count(&client)?, 2);
    client.node_unpublish_volume(unpublish(&own))?;
    assert_eq!(count(&client)?, 1);
    Ok(())
}
