//! Whole lives.

use std::fs::{self, File};
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, block, create, expand, mount};
use tonic::Code;

use super::{Rig, can, is};

#[test]
fn a_volume_of_images_is_used_on_another_node_from_its_making_to_its_end() -> Result<()> {
    if !can("a_volume_of_images_is_used_on_another_node_from_its_making_to_its_end")? {
        return Ok(());
    }
    let mut rig = Rig::image()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    let context = rig.bring(&volume, &rig.one)?;
    ensure!(rig.attach(&volume, &rig.one)? == context, "the same call has another context");
    fs::write(volume.target.join("data"), "words")?;
    is(rig.attach(&volume, &rig.two), Code::FailedPrecondition, &format!("attached to node {}", rig.one.id))?;
    is(rig.controller.delete_volume(volume.delete()), Code::FailedPrecondition, "is attached to node")?;

    let larger = 96 * MIB;
    let grown = rig.controller.controller_expand_volume(expand(&volume.id(), larger))?;
    ensure!(grown.capacity_bytes == larger && grown.node_expansion_required, "{grown:?}");
    ensure!(
        rig.one.client.node_expand_volume(volume.expand_on_node(larger))?.capacity_bytes == larger,
        "it is smaller"
    );
    let usage = rig.one.client.node_get_volume_stats(volume.stats())?.usage;
    ensure!(usage[0].total > 80 * MIB, "{usage:?}");

    // Both hosts are killed: the kernel goes on, and the next ones find what is there.
    rig.restart_storage()?;
    rig.one.restart()?;
    fs::write(volume.target.join("more"), "words")?;
    rig.one.stage(&volume, &context)?;
    rig.one.publish(&volume, &context)?;
    rig.take(&volume, &rig.one)?;
    rig.is_left_with_nothing(&volume)?;

    let again = rig.bring(&volume, &rig.two)?;
    ensure!(again != context, "another attachment has the same context");
    for name in ["data", "more"] {
        assert_eq!(fs::read(volume.target.join(name))?, b"words");
    }
    rig.take(&volume, &rig.two)?;
    for _ in 0..2 {
        rig.controller.delete_volume(volume.delete())?;
    }
    rig.detach(&volume, &rig.two)?;
    rig.is_left_with_nothing(&volume)
}

#[test]
fn thin_volumes_have_their_snapshots_and_clones_while_another_node_uses_them() -> Result<()> {
    if !can("thin_volumes_have_their_snapshots_and_clones_while_another_node_uses_them")? {
        return Ok(());
    }
    let rig = Rig::thin()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    rig.bring(&volume, &rig.one)?;
    let mut file = File::create(volume.target.join("data"))?;
    file.write_all(b"before")?;
    file.sync_all()?;
    drop(file);
    File::open(&volume.target)?.sync_all()?;
    let request = csi::CreateSnapshotRequest { source_volume_id: volume.id(), name: "s".into(), ..Default::default() };
    let snapshot = rig.controller.create_snapshot(request)?.snapshot.context("no snapshot")?;
    fs::write(volume.target.join("data"), "after")?;
    let source = csi::volume_content_source::SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() };
    let content = csi::VolumeContentSource { r#type: Some(csi::volume_content_source::Type::Snapshot(source)) };
    let request = csi::CreateVolumeRequest { volume_content_source: Some(content), ..create("b", 64 * MIB, mount()) };
    let copy = rig.create_with(request)?;
    rig.bring(&copy, &rig.two)?;
    assert_eq!(fs::read(copy.target.join("data"))?, b"before");
    assert_eq!(fs::read(volume.target.join("data"))?, b"after");
    rig.take(&copy, &rig.two)?;
    rig.take(&volume, &rig.one)?;
    rig.controller.delete_volume(copy.delete())?;
    let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
    rig.controller.delete_snapshot(request)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}

#[test]
fn several_nodes_share_a_raw_volume_and_one_that_may_not_write_cannot() -> Result<()> {
    if !can("several_nodes_share_a_raw_volume_and_one_that_may_not_write_cannot")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    let mut many = block();
    many.access_mode = Some(csi::volume_capability::AccessMode {
        mode: csi::volume_capability::access_mode::Mode::MultiNodeMultiWriter.into(),
    });
    let volume = rig.create("a", 16 * MIB, many)?;
    let mut elsewhere = volume.clone();
    elsewhere.target = volume.target.with_file_name("elsewhere");
    elsewhere.staging = Some(volume.target.with_file_name("staging-elsewhere"));
    rig.bring(&volume, &rig.one)?;
    let request = csi::ControllerPublishVolumeRequest { readonly: true, ..super::attach_request(&elsewhere, &rig.two) };
    let context = rig.controller.controller_publish_volume(request)?.publish_context;
    rig.two.stage(&elsewhere, &context)?;
    is(rig.two.publish(&elsewhere, &context), Code::FailedPrecondition, "is read-only")?;
    let readonly = csi::NodePublishVolumeRequest { readonly: true, publish_context: context, ..elsewhere.publish() };
    rig.two.client.node_publish_volume(readonly)?;
    let mut writer = File::options().write(true).open(&volume.target)?;
    writer.write_all(&[7; 4096])?;
    writer.sync_all()?;
    let mut found = [0; 4096];
    File::open(&elsewhere.target)?.read_exact(&mut found)?;
    ensure!(found == [7; 4096], "the other node does not see it");
    let refused = File::options().write(true).open(&elsewhere.target).and_then(|mut file| {
        file.write_all(&[8; 4096])?;
        file.sync_all()
    });
    ensure!(refused.is_err(), "it was written");
    let nodes = rig.controller.list_volumes(Default::default())?.entries[0].status.clone().context("no status")?;
    ensure!(nodes.published_node_ids.len() == 2, "{nodes:?}");
    drop(writer);
    rig.take(&elsewhere, &rig.two)?;
    rig.take(&volume, &rig.one)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}
