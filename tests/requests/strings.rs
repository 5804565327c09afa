//! Strings, maps and paths: missing, too large, with characters that must not be in them, and leading elsewhere.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessType, MountVolume};
use dunnage_test_common::{MIB, create, expand, mount};
use tonic::Code;

use crate::{refused, rig};

fn map(key: &str, bytes: usize) -> HashMap<String, String> {
    [(key.into(), "v".repeat(bytes - key.len()))].into()
}

#[test]
fn what_is_required_and_missing_is_named() -> Result<()> {
    let Some(rig) = rig("what_is_required_and_missing_is_named")? else { return Ok(()) };
    let client = &rig.disks;
    let volume = rig.volume(client, "a", mount())?;
    let (no_access, no_mode) = (
        csi::VolumeCapability { access_type: None, ..mount() },
        csi::VolumeCapability { access_mode: None, ..mount() },
    );
    let create = |name: &str, capabilities: Vec<csi::VolumeCapability>| {
        let request = csi::CreateVolumeRequest { volume_capabilities: capabilities, ..create(name, MIB, mount()) };
        client.create_volume(request).map(drop)
    };
    let validate = |volume_id: String, volume_capabilities: Vec<csi::VolumeCapability>| {
        let request = csi::ValidateVolumeCapabilitiesRequest { volume_id, volume_capabilities, ..Default::default() };
        client.validate_volume_capabilities(request).map(drop)
    };
    let stage = |change: &dyn Fn(&mut csi::NodeStageVolumeRequest)| {
        let mut request = volume.stage();
        change(&mut request);
        client.node_stage_volume(request).map(drop)
    };
    let publish = |change: &dyn Fn(&mut csi::NodePublishVolumeRequest)| {
        let mut request = volume.publish();
        change(&mut request);
        client.node_publish_volume(request).map(drop)
    };
    let unstage = csi::NodeUnstageVolumeRequest { staging_target_path: String::new(), ..volume.unstage() };
    let unpublish = csi::NodeUnpublishVolumeRequest { target_path: String::new(), ..volume.unpublish() };
    let stats = csi::NodeGetVolumeStatsRequest { volume_path: String::new(), ..volume.stats() };
    let grow = csi::NodeExpandVolumeRequest { volume_path: String::new(), ..volume.expand_on_node(MIB) };
    for (field, call, answer) in [
        ("name", "create", create("", vec![mount()])),
        ("volume_capabilities", "create", create("b", vec![])),
        ("access_type", "create", create("b", vec![no_access.clone()])),
        ("access_mode", "create", create("b", vec![no_mode.clone()])),
        ("volume_id", "delete", client.delete_volume(Default::default()).map(drop)),
        ("volume_id", "validate", validate(String::new(), vec![mount()])),
        ("volume_capabilities", "validate", validate(volume.id(), vec![])),
        ("volume_id", "get", client.controller_get_volume(Default::default()).map(drop)),
        ("volume_id", "expand", client.controller_expand_volume(expand("", MIB)).map(drop)),
        ("volume_id", "stage", stage(&|request| request.volume_id.clear())),
        ("staging_target_path", "stage", stage(&|request| request.staging_target_path.clear())),
        ("volume_capability", "stage", stage(&|request| request.volume_capability = None)),
        ("access_mode", "stage", stage(&|request| request.volume_capability = Some(no_mode.clone()))),
        ("volume_id", "publish", publish(&|request| request.volume_id.clear())),
        ("target_path", "publish", publish(&|request| request.target_path.clear())),
        ("volume_capability", "publish", publish(&|request| request.volume_capability = None)),
        ("access_type", "publish", publish(&|request| request.volume_capability = Some(no_access.clone()))),
        ("volume_id", "unstage", client.node_unstage_volume(Default::default()).map(drop)),
        ("staging_target_path", "unstage", client.node_unstage_volume(unstage).map(drop)),
        ("volume_id", "unpublish", client.node_unpublish_volume(Default::default()).map(drop)),
        ("target_path", "unpublish", client.node_unpublish_volume(unpublish).map(drop)),
        ("volume_id", "stats", client.node_get_volume_stats(Default::default()).map(drop)),
        ("volume_path", "stats", client.node_get_volume_stats(stats).map(drop)),
        ("volume_id", "health", client.node_get_volume_health(Default::default()).map(drop)),
        ("volume_id", "node expand", client.node_expand_volume(Default::default()).map(drop)),
        ("volume_path", "node expand", client.node_expand_volume(grow).map(drop)),
    ] {
        refused(call, answer, Code::InvalidArgument, &[field, "missing"])?;
    }
    // With STAGE_UNSTAGE_VOLUME a publish without the path comes before its stage: it is made up for, not corrected.
    let answer = publish(&|request| request.staging_target_path.clear());
    refused("publish", answer, Code::FailedPrecondition, &["staging_target_path"])
}

#[test]
fn what_is_too_large_is_refused_with_its_size_and_the_limit() -> Result<()> {
    let Some(rig) = rig("what_is_too_large_is_refused_with_its_size_and_the_limit")? else { return Ok(()) };
    let client = &rig.files;
    let long = "x".repeat(129);
    let longest = "x".repeat(128);
    client.create_volume(create(&longest, MIB, mount()))?;
    refused("name", client.create_volume(create(&long, MIB, mount())), Code::InvalidArgument, &["129", "128"])?;
    let parameters = csi::CreateVolumeRequest { parameters: map("k", 4097), ..create("a", MIB, mount()) };
    refused("parameters", client.create_volume(parameters), Code::InvalidArgument, &["4097", "4096"])?;
    let secrets = csi::CreateVolumeRequest { secrets: map("k", 65537), ..create("a", MIB, mount()) };
    refused("secrets", client.create_volume(secrets), Code::InvalidArgument, &["65537", "65536"])?;
    let id = csi::DeleteVolumeRequest { volume_id: long.clone(), ..Default::default() };
    refused("volume_id", client.delete_volume(id), Code::InvalidArgument, &["129"])?;
    let flags = vec!["x".repeat(100); 42];
    let access_type = Some(AccessType::Mount(MountVolume { mount_flags: flags, ..Default::default() }));
    let flags = csi::VolumeCapability { access_type, ..mount() };
    refused("mount_flags", client.create_volume(create("a", MIB, flags)), Code::InvalidArgument, &["4200", "4096"])?;
    let volume = rig.volume(client, "b", mount())?;
    let context = csi::NodePublishVolumeRequest { volume_context: map("k", 65537), ..volume.publish() };
    refused("volume_context", client.node_publish_volume(context), Code::InvalidArgument, &["65537"])?;
    let path = csi::NodePublishVolumeRequest { target_path: format!("/{}", "x/".repeat(2100)), ..volume.publish() };
    refused("target_path", client.node_publish_volume(path), Code::InvalidArgument, &["target_path", "4095"])?;
    let name = csi::NodePublishVolumeRequest { target_path: format!("/{}/x", "x".repeat(256)), ..volume.publish() };
    refused("a name", client.node_publish_volume(name), Code::InvalidArgument, &["target_path", "255"])?;
    let huge = csi::CreateVolumeRequest { secrets: map("k", 8 << 20), ..create("a", MIB, mount()) };
    refused("a request of 8 MiB", client.create_volume(huge), Code::InvalidArgument, &[])
}

#[test]
fn keys_that_the_specification_does_not_allow_are_refused() -> Result<()> {
    let Some(rig) = rig("keys_that_the_specification_does_not_allow_are_refused")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    let secrets = || HashMap::from([("pass word".to_owned(), "value".to_owned())]);
    let stage = csi::NodeStageVolumeRequest { secrets: secrets(), ..volume.stage() };
    refused("stage", rig.disks.node_stage_volume(stage), Code::InvalidArgument, &["secrets", "letters, digits"])?;
    let delete = csi::DeleteVolumeRequest { secrets: secrets(), ..volume.delete() };
    refused("delete", rig.disks.delete_volume(delete), Code::InvalidArgument, &["secrets"])?;
    for (key, value, word) in [
        ("a_b/zone", "z", "a_b/zone"),
        ("zone", "-z", "-z"),
        ("zone", &"z".repeat(64), "63"),
        ("", "z", "topology key"),
    ] {
        let topology = csi::Topology { segments: [(key.to_owned(), value.to_owned())].into() };
        let create = csi::CreateVolumeRequest {
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: vec![topology.clone()],
                preferred: vec![],
            }),
            ..create("b", MIB, mount())
        };
        refused(key, rig.disks.create_volume(create), Code::InvalidArgument, &["topology", word])?;
        let capacity = csi::GetCapacityRequest { accessible_topology: Some(topology), ..Default::default() };
        refused(key, rig.disks.get_capacity(capacity), Code::InvalidArgument, &["topology", word])?;
    }
    Ok(())
}

#[test]
fn secrets_and_contexts_of_64_kib_are_taken() -> Result<()> {
    let Some(rig) = rig("secrets_and_contexts_of_64_kib_are_taken")? else { return Ok(()) };
    let secrets = || map("k", 65536);
    let request = csi::CreateVolumeRequest { secrets: secrets(), ..create("a", 16 * MIB, mount()) };
    rig.disks.create_volume(request)?;
    let volume = rig.volume(&rig.disks, "a", mount())?;
    let stage = csi::NodeStageVolumeRequest {
        secrets: secrets(),
        volume_context: secrets(),
        publish_context: secrets(),
        ..volume.stage()
    };
    rig.disks.node_stage_volume(stage)?;
    let publish = csi::NodePublishVolumeRequest {
        secrets: secrets(),
        volume_context: secrets(),
        publish_context: secrets(),
        ..volume.publish()
    };
    rig.disks.node_publish_volume(publish)?;
    Ok(())
}

#[test]
fn names_with_a_path_or_control_characters_do_no_harm() -> Result<()> {
    let Some(rig) = rig("names_with_a_path_or_control_characters_do_no_harm")? else { return Ok(()) };
    let before = std::fs::read_dir(rig.host.setup().scratch().path())?.count();
    for name in ["a\0b", "a\x07b", "a\x1bb", "a\x7fb", "a\u{9b}b"] {
        let shown = format!("{:?}", name.chars().nth(1).unwrap());
        let answer = rig.files.create_volume(create(name, MIB, mount()));
        refused(name, answer, Code::InvalidArgument, &["name", &shown])?;
    }
    // The specification allows these: each is a volume of its own beneath the root.
    let odd =
        ["../../x", "/etc/passwd", ".", "..", "a/b", "a b\n", "A", "a", "%41", "ä", "\u{202e}x", "~", "a.b", ".x"];
    for client in [&rig.files, &rig.disks] {
        let ids: std::collections::BTreeSet<_> = odd
            .iter()
            .map(|name| Ok(client.create_volume(create(name, 16 * MIB, mount()))?.volume.expect("no volume").volume_id))
            .collect::<Result<_>>()?;
        ensure!(ids.len() == odd.len(), "two names made one volume: {ids:?}");
        for volume_id in ids {
            ensure!(volume_id.len() <= 128 && !volume_id.contains('/'), "{volume_id}");
            client.delete_volume(csi::DeleteVolumeRequest { volume_id, ..Default::default() })?;
        }
    }
    ensure!(std::fs::read_dir(rig.host.setup().scratch().path())?.count() == before, "something lies beside the root");
    Ok(())
}

#[test]
fn paths_that_are_relative_climb_or_have_a_nul_are_refused() -> Result<()> {
    let Some(rig) = rig("paths_that_are_relative_climb_or_have_a_nul_are_refused")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    for path in ["some/path", "../up", "/a/../../etc", "/a/..", "/", "/a\0b", "."] {
        let shown = format!("{path:?}");
        let stage = csi::NodeStageVolumeRequest { staging_target_path: path.into(), ..volume.stage() };
        let publish = csi::NodePublishVolumeRequest { target_path: path.into(), ..volume.publish() };
        let unpublish = csi::NodeUnpublishVolumeRequest { target_path: path.into(), ..volume.unpublish() };
        let unstage = csi::NodeUnstageVolumeRequest { staging_target_path: path.into(), ..volume.unstage() };
        for (call, answer) in [
            ("stage", rig.disks.node_stage_volume(stage).map(drop)),
            ("publish", rig.disks.node_publish_volume(publish).map(drop)),
            ("unpublish", rig.disks.node_unpublish_volume(unpublish).map(drop)),
            ("unstage", rig.disks.node_unstage_volume(unstage).map(drop)),
        ] {
            refused(&format!("{call} at {shown}"), answer, Code::InvalidArgument, &["target_path", &shown])?;
        }
        // CSI has another code here: on such a path no volume is.
        let stats = csi::NodeGetVolumeStatsRequest { volume_path: path.into(), ..volume.stats() };
        refused(&shown, rig.disks.node_get_volume_stats(stats), Code::NotFound, &[&shown])?;
    }
    Ok(())
}

#[test]
fn mount_flags_that_are_unknown_are_refused_by_name() -> Result<()> {
    let Some(rig) = rig("mount_flags_that_are_unknown_are_refused_by_name")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    for flag in ["no-such-option", "data=nonsense", "loop", "offset=5", "bind", "remount"] {
        let access_type = Some(AccessType::Mount(MountVolume { mount_flags: vec![flag.into()], ..Default::default() }));
        let volume_capability = Some(csi::VolumeCapability { access_type, ..mount() });
        let answer = rig.disks.node_stage_volume(csi::NodeStageVolumeRequest { volume_capability, ..volume.stage() });
        let name = flag.split('=').next().unwrap();
        refused(flag, answer, Code::InvalidArgument, &[name])?;
    }
    rig.disks.node_stage_volume(volume.stage())?;
    Ok(())
}
