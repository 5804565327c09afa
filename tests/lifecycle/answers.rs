//! A call that is repeated gets the same answer; one that asks otherwise is told so.

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, GIB, MIB, block, create, expand, filesystem, mount};
use tonic::Code;

use crate::{Mode, bring, is, rig, take, with_mode};

#[test]
fn every_changing_call_repeated_gets_the_same_answer() -> Result<()> {
    let Some(rig) = rig("every_changing_call_repeated_gets_the_same_answer")? else { return Ok(()) };
    for (name, client, capability) in
        [("dir", &rig.files, mount()), ("image", &rig.disks, filesystem("xfs")), ("block", &rig.disks, block())]
    {
        let bytes = 320 * MIB;
        let volume = rig.sized(client, name, capability.clone(), bytes)?;
        macro_rules! twice {
            ($call:ident, $request:expr) => {{
                let first = client.$call($request)?;
                assert_eq!(first, client.$call($request)?, "{}", stringify!($call));
            }};
        }
        twice!(create_volume, create(name, bytes, capability.clone()));
        assert_eq!(client.create_volume(create(name, bytes, capability.clone()))?.volume.as_ref(), Some(&volume.made));
        if volume.staging.is_some() {
            twice!(node_stage_volume, volume.stage());
        }
        twice!(node_publish_volume, volume.publish());
        twice!(controller_expand_volume, expand(&volume.id(), 2 * bytes));
        if volume.staging.is_some() {
            twice!(node_expand_volume, volume.expand_on_node(2 * bytes));
        }
        twice!(node_unpublish_volume, volume.unpublish());
        if volume.staging.is_some() {
            twice!(node_unstage_volume, volume.unstage());
        }
        twice!(delete_volume, volume.delete());
    }
    Ok(())
}

#[test]
fn a_create_may_differ_in_what_does_not_make_the_volume() -> Result<()> {
    let Some(rig) = rig("a_create_may_differ_in_what_does_not_make_the_volume")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        let first = client.create_volume(create("a", 16 * MIB, mount()))?;
        let mut other = create("a", 16 * MIB, with_mode(mount(), Mode::SingleNodeReaderOnly));
        other.parameters = [("csi.storage.k8s.io/pvc/name".into(), "claim".into())].into();
        other.secrets = [("password".into(), "rotated".into())].into();
        assert_eq!(first, client.create_volume(other)?);
        // The volume has what is asked for here too.
        let capacity_range = Some(csi::CapacityRange { required_bytes: MIB, limit_bytes: GIB });
        let other = csi::CreateVolumeRequest { capacity_range, ..create("a", 0, mount()) };
        assert_eq!(first, client.create_volume(other)?);
    }
    Ok(())
}

#[test]
fn a_create_of_the_same_name_that_asks_for_another_volume_already_exists() -> Result<()> {
    let Some(rig) = rig("a_create_of_the_same_name_that_asks_for_another_volume_already_exists")? else {
        return Ok(());
    };
    let client = &rig.disks;
    let made = rig.volume(client, "a", filesystem("ext4"))?;
    let smaller = Some(csi::CapacityRange { required_bytes: MIB, limit_bytes: 8 * MIB });
    for (case, request) in [
        ("larger", create("a", 32 * MIB, filesystem("ext4"))),
        ("smaller", csi::CreateVolumeRequest { capacity_range: smaller, ..create("a", 0, filesystem("ext4")) }),
        ("another file system", create("a", 16 * MIB, filesystem("btrfs"))),
        ("raw block", create("a", 16 * MIB, block())),
    ] {
        let client = client.under("image", Fault::OtherArguments);
        let message = is(case, client.create_volume(request), Code::AlreadyExists)?;
        ensure!(message.contains("\"a\""), "{message}");
    }
    let found = client.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id: made.id() })?;
    assert_eq!(found.volume, Some(made.made));
    Ok(())
}

#[test]
fn a_stage_otherwise_already_exists_and_a_publish_otherwise_too() -> Result<()> {
    let Some(rig) = rig("a_stage_otherwise_already_exists_and_a_publish_otherwise_too")? else { return Ok(()) };
    let volume = rig.volume(&rig.disks, "a", mount())?;
    bring(&rig.disks, &volume)?;
    let elsewhere = csi::NodeStageVolumeRequest {
        staging_target_path: volume.target.with_file_name("elsewhere").display().to_string(),
        ..volume.stage()
    };
    let (disks, files) =
        (rig.disks.under("image", Fault::OtherArguments), rig.files.under("dir", Fault::OtherArguments));
    is("elsewhere", disks.node_stage_volume(elsewhere), Code::AlreadyExists)?;
    let as_block = csi::NodeStageVolumeRequest { volume_capability: Some(block()), ..volume.stage() };
    is("as raw block", disks.node_stage_volume(as_block), Code::AlreadyExists)?;
    let readonly = csi::NodePublishVolumeRequest { readonly: true, ..volume.publish() };
    is("read-only", disks.node_publish_volume(readonly), Code::AlreadyExists)?;
    let other = rig.volume(&rig.files, "b", mount())?;
    bring(&rig.files, &other)?;
    let readonly = csi::NodePublishVolumeRequest { readonly: true, ..other.publish() };
    is("read-only", files.node_publish_volume(readonly), Code::AlreadyExists)?;
    take(&rig.files, &other)?;
    take(&rig.disks, &volume)
}

#[test]
fn a_single_writer_has_one_target_and_other_modes_have_several() -> Result<()> {
    let Some(rig) = rig("a_single_writer_has_one_target_and_other_modes_have_several")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        for (name, mode) in [("single", Mode::SingleNodeSingleWriter), ("multi", Mode::SingleNodeMultiWriter)] {
            let volume = rig.volume(client, name, with_mode(mount(), mode))?;
            bring(client, &volume)?;
            let mut second = volume.clone();
            second.target.set_file_name("second");
            let answer = client.node_publish_volume(second.publish());
            if mode == Mode::SingleNodeSingleWriter {
                let message = is(name, answer, Code::FailedPrecondition)?;
                ensure!(message.contains(volume.target.to_str().unwrap()), "{message}");
                ensure!(!second.target.exists(), "a folder is left");
            } else {
                answer?;
                std::fs::write(volume.target.join("data"), "one")?;
                assert_eq!(std::fs::read_to_string(second.target.join("data"))?, "one");
                client.node_unpublish_volume(second.unpublish())?;
            }
            take(client, &volume)?;
        }
    }
    Ok(())
}

#[test]
fn a_delete_of_a_published_volume_is_refused_and_of_a_staged_one_unstages_it() -> Result<()> {
    let Some(rig) = rig("a_delete_of_a_published_volume_is_refused_and_of_a_staged_one_unstages_it")? else {
        return Ok(());
    };
    for (driver, client) in [("dir", &rig.files), ("image", &rig.disks)] {
        let volume = rig.volume(client, "a", mount())?;
        bring(client, &volume)?;
        std::fs::write(volume.target.join("data"), "kept")?;
        let message = is(
            "published",
            client.under(driver, Fault::InUse).delete_volume(volume.delete()),
            Code::FailedPrecondition,
        )?;
        ensure!(message.contains(volume.target.to_str().unwrap()), "{message}");
        assert_eq!(std::fs::read_to_string(volume.target.join("data"))?, "kept");
        client.node_unpublish_volume(volume.unpublish())?;
        client.delete_volume(volume.delete())?;
        let left = dunnage_test_common::mounts_beneath(rig.host.setup().scratch().path())?;
        ensure!(left.is_empty(), "{left:?}");
    }
    Ok(())
}
