//! Whole lives of volumes that are on one node and used on others.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, Setup, Volume, expand, filesystem, mount};
use tonic::Code;

use super::{DEADLINE, DUNNAGE, FAST, Rig, can, is};

#[test]
fn a_volume_is_used_on_one_node_and_then_on_another_grows_and_leaves_nothing() -> Result<()> {
    if !can("a_volume_is_used_on_one_node_and_then_on_another_grows_and_leaves_nothing")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    let context = rig.bring(&volume, &rig.one)?;
    fs::write(volume.target.join("data"), "data")?;
    // Repeated, all of it finds what is there.
    assert_eq!(rig.attach(&volume, &rig.one)?, context);
    rig.one.stage(&volume, &context)?;
    rig.one.publish(&volume, &context)?;
    ensure!(rig.target.sessions(&volume.id())?.len() == 1, "{:?}", rig.target.sessions(&volume.id())?);
    is(rig.attach(&volume, &rig.two), Code::FailedPrecondition, "")?;
    is(rig.controller.delete_volume(volume.delete()), Code::FailedPrecondition, "")?;
    let grown = rig.controller.controller_expand_volume(expand(&volume.id(), 128 * MIB))?;
    ensure!(grown.node_expansion_required, "{grown:?}");
    rig.one.client.node_expand_volume(volume.expand_on_node(128 * MIB))?;
    let seen = rustix::fs::statvfs(&volume.target)?;
    ensure!(seen.f_blocks * seen.f_frsize > 100 * MIB as u64, "it has {} blocks", seen.f_blocks);
    rig.take(&volume, &rig.one)?;
    rig.is_left_with_nothing(&volume)?;
    // What the first node was told reaches nothing any more.
    is(rig.one.stage(&volume, &context), Code::FailedPrecondition, "")?;
    rig.one.client.node_unstage_volume(volume.unstage())?;
    let there = Volume { target: rig.two.host.setup().scratch().path().join("target"), ..volume.clone() };
    rig.bring(&there, &rig.two)?;
    assert_eq!(fs::read_to_string(there.target.join("data"))?, "data");
    rig.take(&there, &rig.two)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}

#[test]
fn a_node_that_was_not_granted_is_not_let_in() -> Result<()> {
    if !can("a_node_that_was_not_granted_is_not_let_in")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    let context = rig.attach(&volume, &rig.one)?;
    is(rig.two.stage(&volume, &context), Code::PermissionDenied, "does not let this node in")?;
    rig.two.client.node_unstage_volume(volume.unstage())?;
    rig.one.stage(&volume, &context)?;
    rig.one.client.node_unstage_volume(volume.unstage())?;
    rig.detach(&volume, &rig.one)?;
    rig.is_left_with_nothing(&volume)
}

#[test]
fn a_unit_that_exists_is_used_only_if_it_says_that_it_is_the_one() -> Result<()> {
    if !can("a_unit_that_exists_is_used_only_if_it_says_that_it_is_the_one")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    // An array's unit, for which one of ours stands: it is granted to the node `one`.
    let made = rig.create("a", 64 * MIB, mount())?;
    rig.attach(&made, &rig.one)?;
    let iqn = rig.target.exports(&made.id())?.pop().context("there is no target")?;
    let backstore = fs::read_dir("/sys/kernel/config/target/core/iblock_7337")?.flatten().find_map(|entry| {
        let unit = fs::read_link(format!("/sys/kernel/config/target/iscsi/{iqn}/tpgt_1/lun/lun_0/dunnage")).ok()?;
        (unit.file_name()? == entry.file_name()).then(|| entry.file_name().to_string_lossy().into_owned())
    });
    let serial = backstore.context("there is no backstore")?;
    let instance = "a".repeat(26);
    let keys = format!("address: 127.0.0.1\nport: {}\ninstance: {instance}", rig.target.port());
    let mut host = Setup::new()?.set("node", "one").rootless("fast", "iscsi", &keys).prepare(DUNNAGE)?;
    host.restart()?;
    let client = host.client(FAST)?.with_deadline(DEADLINE);
    let volume = |serial: &str| {
        let context = HashMap::from([("iqn".to_owned(), iqn.clone()), ("serial".to_owned(), serial.to_owned())]);
        let made =
            csi::Volume { volume_id: format!("{instance}.x.static"), volume_context: context, ..Default::default() };
        Volume::new(made, filesystem("ext4"), &host.setup().scratch().path().join("pods"), true)
    };
    is(client.node_stage_volume(volume("another").stage()), Code::FailedPrecondition, "has another unit there")?;
    client.node_unstage_volume(volume("another").unstage())?;
    let right = volume(&serial);
    client.node_stage_volume(right.stage())?;
    client.node_publish_volume(right.publish())?;
    fs::write(right.target.join("data"), "data")?;
    client.node_unpublish_volume(right.unpublish())?;
    client.node_unstage_volume(right.unstage())?;
    rig.detach(&made, &rig.one)?;
    rig.is_left_with_nothing(&made)
}
