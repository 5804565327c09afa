//! Ids: of another instance, of a volume that is gone, of no form that was ever made, and with a path in them.

use anyhow::Result;
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Fault, MIB, Volume, create, expand, mount};
use tonic::{Code, Status};

use crate::{DIR, refused, rig};

/// Every call that names a volume, for this one.
fn calls(client: &Client, volume: &Volume) -> Vec<(&'static str, Result<(), Status>)> {
    let capability = Some(volume.capability.clone());
    let validate = csi::ValidateVolumeCapabilitiesRequest {
        volume_id: volume.id(),
        volume_capabilities: capability.into_iter().collect(),
        ..Default::default()
    };
    let get = csi::ControllerGetVolumeRequest { volume_id: volume.id() };
    let health = csi::NodeGetVolumeHealthRequest { volume_id: volume.id(), ..Default::default() };
    vec![
        ("validate", client.validate_volume_capabilities(validate).map(drop)),
        ("get", client.controller_get_volume(get).map(drop)),
        ("expand", client.controller_expand_volume(expand(&volume.id(), 32 * MIB)).map(drop)),
        ("stage", client.node_stage_volume(volume.stage()).map(drop)),
        ("publish", client.node_publish_volume(volume.publish()).map(drop)),
        ("stats", client.node_get_volume_stats(volume.stats()).map(drop)),
        ("health", client.node_get_volume_health(health).map(drop)),
        ("node expand", client.node_expand_volume(volume.expand_on_node(32 * MIB)).map(drop)),
    ]
}

#[test]
fn an_id_of_another_instance_is_failed_precondition_that_says_where_it_lives() -> Result<()> {
    let Some(rig) = rig("an_id_of_another_instance_is_failed_precondition_that_says_where_it_lives")? else {
        return Ok(());
    };
    let there = rig.volume(&rig.files, "a", mount())?;
    let mut volume = there.clone();
    volume.staging = Some(volume.target.with_file_name("staging"));
    let instance = there.made.volume_id.split('.').next().unwrap();
    let disks = rig.disks.under("image", Fault::UnknownId);
    let all = calls(&disks, &volume).into_iter().chain([
        ("delete", disks.delete_volume(volume.delete()).map(drop)),
        ("unpublish", disks.node_unpublish_volume(volume.unpublish()).map(drop)),
        ("unstage", disks.node_unstage_volume(volume.unstage()).map(drop)),
    ]);
    for (call, answer) in all {
        refused(call, answer, Code::FailedPrecondition, &[instance, "node-7", "disks"])?;
    }
    // It is there still.
    rig.files.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id: there.id() })?;
    Ok(())
}

#[test]
fn an_id_of_no_known_form_is_not_found_and_its_removal_succeeds() -> Result<()> {
    let Some(rig) = rig("an_id_of_no_known_form_is_not_found_and_its_removal_succeeds")? else { return Ok(()) };
    let mut volume = rig.volume(&rig.disks, "a", mount())?;
    let key_with_path = volume.id().replacen(".a+", "...%2f..%2f+", 1).replacen(".a.", ".%2e%2e.", 1);
    for id in ["pvc-1", "some/path", "../../etc", "/etc/passwd", "a.b.c", &key_with_path, "x\u{7f}y", "\u{202e}"] {
        volume.made.volume_id = id.into();
        for (call, answer) in calls(&rig.disks.under("image", Fault::BadRequest), &volume) {
            refused(&format!("{call} of {id:?}"), answer, Code::NotFound, &[&format!("{id:?}")])?;
        }
        rig.disks.delete_volume(volume.delete())?;
        rig.disks.node_unpublish_volume(volume.unpublish())?;
        rig.disks.node_unstage_volume(volume.unstage())?;
    }
    let listed = rig.disks.list_volumes(Default::default())?.entries;
    assert_eq!(listed.len(), 1, "{listed:?}");
    Ok(())
}

#[test]
fn a_late_call_for_a_deleted_volume_does_not_meet_its_successor() -> Result<()> {
    let Some(rig) = rig("a_late_call_for_a_deleted_volume_does_not_meet_its_successor")? else { return Ok(()) };
    let old = rig.volume(&rig.disks, "a", mount())?;
    rig.disks.delete_volume(old.delete())?;
    let new = rig.volume(&rig.disks, "a", mount())?;
    assert_ne!(old.id(), new.id());
    for (call, answer) in calls(&rig.disks.under("image", Fault::UnknownId), &old) {
        refused(call, answer, Code::NotFound, &[&old.id()])?;
    }
    rig.disks.delete_volume(old.delete())?;
    rig.disks.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id: new.id() })?;
    Ok(())
}

#[test]
fn a_folder_with_links_in_the_place_of_a_volume_is_not_followed() -> Result<()> {
    let Some(rig) = rig("a_folder_with_links_in_the_place_of_a_volume_is_not_followed")? else { return Ok(()) };
    let volume = rig.volume(&rig.files, "a", mount())?;
    let root = rig.host.setup().root("files");
    let secret = rig.host.setup().scratch().folder("outside")?;
    std::fs::write(secret.join("kept"), "kept")?;
    let data = std::fs::read_dir(root.join("volumes"))?.next().expect("no data")?.path();
    std::fs::remove_dir(&data)?;
    std::os::unix::fs::symlink(&secret, &data)?;
    let answer = rig.host.client(DIR)?.node_publish_volume(volume.publish());
    assert!(answer.is_err(), "a link was published");
    rig.files.delete_volume(volume.delete())?;
    rig.files.create_volume(create("b", MIB, mount()))?;
    assert!(secret.join("kept").exists(), "what a link pointed at was deleted");
    Ok(())
}
