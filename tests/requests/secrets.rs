//! A secret goes to the driver and nowhere else.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessType, MountVolume};
use dunnage_test_common::{MIB, Need, Setup, Volume, can_run, create, mount};
use tonic::Status;

use crate::DUNNAGE;

const CANARY: &str = "canary-5b1f";

fn secrets() -> HashMap<String, String> {
    [("key".into(), CANARY.into()), (CANARY.into(), "value".into())].into()
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
        ..dunnage_test_common::expand(&volume.id(), 16 * MIB)
    };
    let grow = csi::NodeExpandVolumeRequest { secrets: secrets(), ..volume.expand_on_node(16 * MIB) };
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
    client.node_publish_volume(publish)?;
    client.controller_expand_volume(expand.clone())?;
    client.node_expand_volume(grow.clone())?;
    client.validate_volume_capabilities(validate.clone())?;
    client.node_get_storage_health(health)?;
    errors.extend(client.delete_volume(delete.clone()).err());
    errors.extend(client.create_volume(csi::CreateVolumeRequest { name: String::new(), ..request }).err());
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
    ensure!(errors.len() == 8, "{errors:?}");
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
fn a_secret_is_in_no_log_error_metric_or_file() -> Result<()> {
    if !can_run("a_secret_is_in_no_log_error_metric_or_file", &[Need::Root])? {
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let setup = Setup::new()?.backend("disks", "image", "")?.set("telemetry", &format!("{{listen: '{port}'}}"));
    let host = setup.env("RUST_LOG", "trace").start(DUNNAGE)?;
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
    kept(&host.setup().scratch().path().join("state"))?;
    kept(&host.setup().root("disks"))
}
