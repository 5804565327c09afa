//! A secret goes to the driver and nowhere else.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessType, MountVolume};
use dunnage_test_common::{MIB, Need, Setup, Volume, can_run, create, mount};
use tonic::Status;

use crate::DUNNAGE;

const CANARY: &str = "canary-5b1f";
/// Where it is written down what programs were started with.
const RAN: &str = "ran";

fn secrets() -> HashMap<String, String> {
    [("key".into(), CANARY.into()), (CANARY.into(), "value".into())].into()
}

/// Programs in the place of those that the host runs, which write down what they are started with.
fn recorders(tools: &Path) -> Result<()> {
    for program in ["mkfs.ext4", "e2fsck", "resize2fs"] {
        let script = format!(
            "#!/bin/sh\n{{ echo {program} \"$@\"; env; }} >> {}/{RAN}\nPATH=/usr/sbin:/sbin exec {program} \"$@\"\n",
            tools.display()
        );
        let path = tools.join(program);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Every other call that has secrets. This plugin offers those of health alone, and answers one of them.
fn other_calls(client: &dunnage_test_common::Client) -> Vec<Status> {
    macro_rules! refused {
        ($($rpc:ident $request:ident,)*) => {
            [$(client.$rpc(csi::$request { secrets: secrets(), ..Default::default() }).map(drop)),*]
        };
    }
    let answers = refused![
        controller_publish_volume ControllerPublishVolumeRequest,
        controller_unpublish_volume ControllerUnpublishVolumeRequest,
        controller_list_volume_health ControllerListVolumeHealthRequest,
        controller_get_volume_health ControllerGetVolumeHealthRequest,
        controller_modify_volume ControllerModifyVolumeRequest,
        create_snapshot CreateSnapshotRequest,
        delete_snapshot DeleteSnapshotRequest,
        list_snapshots ListSnapshotsRequest,
        get_snapshot GetSnapshotRequest,
        create_volume_group_snapshot CreateVolumeGroupSnapshotRequest,
        delete_volume_group_snapshot DeleteVolumeGroupSnapshotRequest,
        get_volume_group_snapshot GetVolumeGroupSnapshotRequest,
        get_metadata_allocated GetMetadataAllocatedRequest,
        get_metadata_delta GetMetadataDeltaRequest,
    ];
    answers.into_iter().filter_map(Result::err).collect()
}

/// Every call that has secrets, once well and once badly; what was said in errors.
fn calls(client: &dunnage_test_common::Client, pods: &Path) -> Result<Vec<Status>> {
    let request = csi::CreateVolumeRequest { secrets: secrets(), ..create("a", 16 * MIB, mount()) };
    let made = client.create_volume(request.clone())?.volume.expect("no volume");
    let volume = Volume::new(made, mount(), pods, true);
    let stage = csi::NodeStageVolumeRequest { secrets: secrets(), publish_context: secrets(), ..volume.stage() };
    let publish = csi::NodePublishVolumeRequest { secrets: secrets(), publish_context: secrets(), ..volume.publish() };
    let expand = csi::ControllerExpandVolumeRequest {
        secrets: secrets(),
        ..dunnage_test_common::expand(&volume.id(), 32 * MIB)
    };
    let grow = csi::NodeExpandVolumeRequest { secrets: secrets(), ..volume.expand_on_node(32 * MIB) };
    let validate = csi::ValidateVolumeCapabilitiesRequest {
        volume_id: volume.id(),
        volume_capabilities: vec![mount()],
        secrets: secrets(),
        ..Default::default()
    };
    let health = csi::NodeGetStorageHealthRequest { secrets: secrets() };
    let delete = csi::DeleteVolumeRequest { secrets: secrets(), ..volume.delete() };
    let mut errors = Vec::new();
    errors.extend(client.node_publish_volume(publish.clone()).err());
    client.node_stage_volume(stage.clone())?;
    // A second time, so that the file system is checked and grown too.
    client.node_unstage_volume(volume.unstage())?;
    client.controller_expand_volume(expand.clone())?;
    client.node_stage_volume(stage.clone())?;
    client.node_publish_volume(publish)?;
    client.node_expand_volume(grow.clone())?;
    client.validate_volume_capabilities(validate.clone())?;
    client.node_get_storage_health(health)?;
    errors.extend(client.delete_volume(delete.clone()).err());
    errors.extend(client.create_volume(csi::CreateVolumeRequest { name: String::new(), ..request.clone() }).err());
    let wrong_key = [(format!("{CANARY} "), CANARY.to_owned())].into();
    errors.extend(client.create_volume(csi::CreateVolumeRequest { secrets: wrong_key, ..request }).err());
    let flags = vec![format!("password={CANARY}")];
    let access_type = Some(AccessType::Mount(MountVolume { mount_flags: flags, ..Default::default() }));
    let flagged = Some(csi::VolumeCapability { access_type, ..mount() });
    let wrong = "some/path".to_owned();
    errors.extend(client.node_stage_volume(csi::NodeStageVolumeRequest { staging_target_path: wrong, ..stage }).err());
    errors.extend(
        client.controller_expand_volume(csi::ControllerExpandVolumeRequest { capacity_range: None, ..expand }).err(),
    );
    errors.extend(client.node_expand_volume(csi::NodeExpandVolumeRequest { volume_path: String::new(), ..grow }).err());
    errors.extend(
        client
            .validate_volume_capabilities(csi::ValidateVolumeCapabilitiesRequest {
                volume_capabilities: vec![],
                ..validate
            })
            .err(),
    );
    client.node_unpublish_volume(volume.unpublish())?;
    client.node_unstage_volume(volume.unstage())?;
    errors.extend(
        client.node_stage_volume(csi::NodeStageVolumeRequest { volume_capability: flagged, ..volume.stage() }).err(),
    );
    client.delete_volume(delete)?;
    ensure!(errors.len() == 9, "{errors:?}");
    let others = other_calls(client);
    // All but ListSnapshots, which needs no field.
    ensure!(others.len() == 12, "{others:?}");
    errors.extend(others);
    Ok(errors)
}

/// Whether any file below the folder has the canary in it.
fn kept(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            kept(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let text = fs::read(entry.path())?;
            let found = text.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
            ensure!(!found, "{} has the secret", entry.path().display());
        }
    }
    Ok(())
}

#[test]
fn a_secret_is_in_no_log_error_metric_file_or_program() -> Result<()> {
    if !can_run("a_secret_is_in_no_log_error_metric_file_or_program", &[Need::Root])? {
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let setup = Setup::new()?.backend("disks", "image", "")?.set("telemetry", &format!("{{listen: '{port}'}}"));
    let tools = setup.scratch().folder("tools")?;
    recorders(&tools)?;
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let host = setup.env("RUST_LOG", "trace").env("PATH", path).start(DUNNAGE)?;
    let client = host.client(crate::IMAGE)?;
    let errors = calls(&client, &host.setup().scratch().path().join("pods"))?;
    for error in errors {
        ensure!(!error.message().contains(CANARY), "{error:?}");
    }
    let metrics = dunnage_test_common::get(port, "/metrics")?;
    ensure!(metrics.contains("CreateVolume"), "no metrics: {metrics}");
    ensure!(!metrics.contains(CANARY), "in the metrics");
    ensure!(host.log().contains("CreateVolume"), "nothing was logged");
    ensure!(!host.log().contains(CANARY), "in the log");
    let ran = fs::read_to_string(tools.join(RAN))?;
    for program in ["mkfs.ext4 ", "e2fsck ", "resize2fs ", "LC_ALL="] {
        ensure!(ran.lines().any(|line| line.starts_with(program)), "{program} is not in {ran}");
    }
    ensure!(!ran.contains(CANARY), "a program was told: {ran}");
    kept(&host.setup().scratch().path().join("state"))?;
    kept(&host.setup().root("disks"))
}
