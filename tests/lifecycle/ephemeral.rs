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
        ("more", &[("size", "134217728")][..], "64 MiB"),
        ("no size", &[("size", "64Mo")], "64Mo"),
        ("nothing", &[("size", "0")], "leave it out"),
        ("negative", &[("size", "-1")], "-1"),
        ("a parameter", &[("mode", "0777")], "there are \"size\""),
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
        let request = inline(&host, "csi-1", &[("size", "32MiB")]);
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

/// Nothing of an inline volume is anywhere.
fn nothing_is_left(host: &Host, client: &Client) -> Result<()> {
    let folder = host.setup().scratch().path();
    ensure!(count(client)? == 0, "a volume is left");
    let marks: Vec<_> = fs::read_dir(folder.join("state/ephemeral"))?.collect();
    ensure!(marks.is_empty(), "marks are left: {marks:?}");
    ensure!(mounts_beneath(folder)?.is_empty(), "mounts are left: {:?}", mounts_beneath(folder)?);
    ensure!(loop_devices_beneath(folder).is_empty(), "loop devices are left");
    Ok(())
}

#[test]
fn a_publish_that_fails_leaves_nothing_of_its_volume() -> Result<()> {
    if !can_run("a_publish_that_fails_leaves_nothing_of_its_volume", &[Need::Root])? {
        return Ok(());
    }
    for (name, driver, rest) in [(DIR, "dir", "quota: none\n"), (IMAGE, "image", "")] {
        let backend = name.split('.').next().unwrap();
        let host = Setup::new()?.backend(backend, driver, &format!("{rest}{ALLOWED}"))?.start(DUNNAGE)?;
        let client = host.client(name)?;
        let request = inline(&host, "csi-1", &[("size", "33554432")]);
        let target = std::path::Path::new(&request.target_path);
        let fails = |case: &str, request: &csi::NodePublishVolumeRequest| {
            ensure!(client.node_publish_volume(request.clone()).is_err(), "{driver}: {case} was published");
            Ok(())
        };
        fs::create_dir_all(target.parent().unwrap())?;
        fs::write(target, "mine")?;
        fails("over a file", &request)?;
        nothing_is_left(&host, &client)?;
        fs::remove_file(target)?;
        fs::create_dir(target)?;
        rustix::mount::mount("foreign", target, "tmpfs", rustix::mount::MountFlags::empty(), c"size=1m")?;
        fails("over another's mount", &request)?;
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty())?;
        nothing_is_left(&host, &client)?;
        let mut flagged = request.clone();
        flagged.volume_capability = Some(with_flag("no-such-option"));
        fails("with an unknown flag", &flagged)?;
        nothing_is_left(&host, &client)?;
        client.node_publish_volume(request.clone())?;
        client.node_unpublish_volume(unpublish(&request))?;
        nothing_is_left(&host, &client)?;
    }
    Ok(())
}

fn with_flag(flag: &str) -> csi::VolumeCapability {
    use csi::volume_capability::{AccessType, MountVolume};
    let access_type = AccessType::Mount(MountVolume { mount_flags: vec![flag.into()], ..MountVolume::default() });
    csi::VolumeCapability { access_type: Some(access_type), ..mount() }
}

#[test]
fn a_publish_that_fails_keeps_the_data_of_a_pod_that_had_the_volume() -> Result<()> {
    if !can_run("a_publish_that_fails_keeps_the_data_of_a_pod_that_had_the_volume", &[Need::Root])? {
        return Ok(());
    }
    for (name, driver, rest) in [(DIR, "dir", "quota: none\n"), (IMAGE, "image", "")] {
        let backend = name.split('.').next().unwrap();
        let host = Setup::new()?.backend(backend, driver, &format!("{rest}{ALLOWED}"))?.start(DUNNAGE)?;
        let client = host.client(name)?;
        let request = inline(&host, "csi-1", &[("size", "33554432")]);
        let data = format!("{}/data", request.target_path);
        client.node_publish_volume(request.clone())?;
        fs::write(&data, "data")?;
        let readonly = csi::NodePublishVolumeRequest { readonly: true, ..request.clone() };
        is("read-only", client.node_publish_volume(readonly), Code::AlreadyExists)?;
        assert_eq!(fs::read_to_string(&data)?, "data", "{driver}");
        // As after a reboot: the mount is gone.
        rustix::mount::unmount(request.target_path.as_str(), rustix::mount::UnmountFlags::empty())?;
        fs::remove_dir(&request.target_path)?;
        fs::write(&request.target_path, "in the way")?;
        is("a file", client.node_publish_volume(request.clone()), Code::FailedPrecondition)?;
        fs::remove_file(&request.target_path)?;
        client.node_publish_volume(request.clone())?;
        assert_eq!(fs::read_to_string(&data)?, "data", "{driver}");
        client.node_unpublish_volume(unpublish(&request))?;
        nothing_is_left(&host, &client)?;
    }
    Ok(())
}

#[test]
fn a_handle_has_one_backend_and_one_target() -> Result<()> {
    if !can_run("a_handle_has_one_backend_and_one_target", &[Need::Root])? {
        return Ok(());
    }
    let rest = format!("quota: none\n{ALLOWED}");
    let setup = Setup::new()?.backend("a", "dir", &rest)?.backend("b", "dir", &rest)?;
    let host = setup.plugin("both.csi.dunnage.dev", &["a", "b"]).start(DUNNAGE)?;
    let client = host.client("both.csi.dunnage.dev")?;
    let first = inline(&host, "csi-1", &[("backend", "a")]);
    client.node_publish_volume(first.clone())?;
    fs::write(format!("{}/data", first.target_path), "data")?;
    let other = inline(&host, "csi-1", &[("backend", "b")]);
    let message = is("another backend", client.node_publish_volume(other), Code::AlreadyExists)?;
    ensure!(message.contains(&first.target_path), "{message}");
    let target_path = format!("{}x", first.target_path);
    let other = csi::NodePublishVolumeRequest { target_path, ..first.clone() };
    is("another target", client.node_publish_volume(other), Code::AlreadyExists)?;
    assert_eq!(fs::read_to_string(format!("{}/data", first.target_path))?, "data");
    client.node_unpublish_volume(unpublish(&first))?;
    nothing_is_left(&host, &client)
}

#[test]
fn an_inline_volume_is_measured_by_its_handle() -> Result<()> {
    if !can_run("an_inline_volume_is_measured_by_its_handle", &[Need::Root])? {
        return Ok(());
    }
    for (name, driver, rest) in [(DIR, "dir", "quota: none\n"), (IMAGE, "image", "")] {
        let backend = name.split('.').next().unwrap();
        let host = Setup::new()?.backend(backend, driver, &format!("{rest}{ALLOWED}"))?.start(DUNNAGE)?;
        let client = host.client(name)?;
        let request = inline(&host, "csi-1", &[("size", "33554432")]);
        let stats = csi::NodeGetVolumeStatsRequest {
            volume_id: request.volume_id.clone(),
            volume_path: request.target_path.clone(),
            ..Default::default()
        };
        let health = csi::NodeGetVolumeHealthRequest {
            volume_id: request.volume_id.clone(),
            volume_publish_path: request.target_path.clone(),
            ..Default::default()
        };
        is("before", client.node_get_volume_stats(stats.clone()), Code::NotFound)?;
        client.node_publish_volume(request.clone())?;
        let usage = client.node_get_volume_stats(stats.clone())?.usage;
        ensure!(usage.iter().any(|one| one.total > 0), "{driver}: {usage:?}");
        let well = client.node_get_volume_health(health.clone())?.volume_health.unwrap();
        ensure!(well.volume_id == "csi-1" && well.health_statuses.is_empty(), "{driver}: {well:?}");
        let elsewhere = csi::NodeGetVolumeStatsRequest { volume_path: "/elsewhere".into(), ..stats.clone() };
        is("elsewhere", client.node_get_volume_stats(elsewhere), Code::NotFound)?;
        rustix::mount::unmount(request.target_path.as_str(), rustix::mount::UnmountFlags::empty())?;
        let ill = client.node_get_volume_health(health.clone())?.volume_health.unwrap();
        ensure!(ill.health_statuses.len() == 1, "{driver}: {ill:?}");
        client.node_unpublish_volume(unpublish(&request))?;
        is("after", client.node_get_volume_stats(stats), Code::NotFound)?;
        is("after", client.node_get_volume_health(health), Code::NotFound)?;
    }
    Ok(())
}

#[test]
fn a_handle_of_nothing_does_not_unpublish_the_volume_of_a_claim() -> Result<()> {
    let Some(rig) = crate::rig("a_handle_of_nothing_does_not_unpublish_the_volume_of_a_claim")? else {
        return Ok(());
    };
    for client in [&rig.files, &rig.disks] {
        let volume = rig.volume(client, "a", mount())?;
        crate::bring(client, &volume)?;
        let foreign = csi::NodeUnpublishVolumeRequest { volume_id: "csi-1".into(), ..volume.unpublish() };
        let message = is("foreign", client.node_unpublish_volume(foreign), Code::FailedPrecondition)?;
        ensure!(message.contains(&volume.id()) && message.contains("csi-1"), "{message}");
        fs::write(volume.target.join("data"), "still there")?;
        crate::take(client, &volume)?;
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
