//! Thin pools that are full, or nearly so.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, MIB, block, create, mount};
use tonic::Code;

use super::{Rig, can, is};

#[test]
fn a_pool_without_room_for_data_fails_writes_says_so_and_takes_nothing_until_it_has_grown() -> Result<()> {
    if !can("a_pool_without_room_for_data_fails_writes_says_so_and_takes_nothing_until_it_has_grown")? {
        return Ok(());
    }
    let rig = Rig::thin(64, "overcommit: 4")?;
    let volume = rig.create("a", 96 * MIB, block())?;
    rig.bring(&volume)?;
    rig.wait_for_health(&rig.client, &volume.id(), &[])?;
    let device = File::options().write(true).open(&volume.target)?;
    let piece = vec![7; MIB as usize];
    let written = (0..96)
        .take_while(|place| device.write_all_at(&piece, place * MIB as u64).and_then(|()| device.sync_data()).is_ok());
    assert_eq!(written.count(), 64);
    let full = rig.under(Fault::PoolDataFull);
    rig.wait_for_health(&full, &volume.id(), &["PoolNearlyFull", "PoolOutOfData"])?;
    is(
        full.create_volume(create("b", 16 * MIB, mount())),
        Code::ResourceExhausted,
        "data of the thin pool is 100.0 % full",
    )?;
    let snapshot = csi::CreateSnapshotRequest { name: "s".into(), source_volume_id: volume.id(), ..Default::default() };
    is(full.create_snapshot(snapshot), Code::ResourceExhausted, "watermark")?;
    is(
        full.controller_expand_volume(dunnage_test_common::expand(&volume.id(), 128 * MIB)),
        Code::OutOfRange,
        "watermark",
    )?;
    assert_eq!(full.get_capacity(Default::default())?.available_capacity, 0);
    let pool = format!("{}/pool", rig.group.name());
    rig.group.lvm(&["lvextend", "-qq", "--size", "+32M", &pool])?;
    device.write_all_at(&piece, 70 * MIB as u64)?;
    device.sync_data()?;
    rig.wait_for_health(&rig.client, &volume.id(), &[])?;
    let other = rig.create("b", 16 * MIB, mount())?;
    drop(device);
    rig.take(&volume)?;
    rig.delete(&volume)?;
    rig.delete(&other)?;
    rig.is_left_with(&["pool"])
}

#[test]
fn a_pool_with_its_metadata_at_the_watermark_takes_nothing() -> Result<()> {
    if !can("a_pool_with_its_metadata_at_the_watermark_takes_nothing")? {
        return Ok(());
    }
    // An empty pool of this size has more than a tenth of its metadata in use.
    let rig = Rig::thin(64, "watermarks: {metadata: 5}")?;
    let full = rig.under(Fault::PoolMetadataFull);
    is(full.create_volume(create("a", 16 * MIB, mount())), Code::ResourceExhausted, "metadata of the thin pool is")?;
    rig.is_left_with(&["pool"])
}

#[test]
fn a_pool_that_gives_volumes_what_others_wrote_is_not_served() -> Result<()> {
    if !can("a_pool_that_gives_volumes_what_others_wrote_is_not_served")? {
        return Ok(());
    }
    let mut rig = Rig::thin(64, "")?;
    let pool = format!("{}/pool", rig.group.name());
    rig.group.lvm(&["lvchange", "-qq", "--zero", "n", &pool])?;
    rig.host.spawn()?;
    rig.host.wait_for_log("does not zero its blocks")?;
    rig.group.lvm(&["lvchange", "-qq", "--zero", "y", &pool])?;
    rig.restart()?;
    rig.create("a", 16 * MIB, mount()).map(drop).map_err(Into::into)
}

#[test]
fn creates_at_once_promise_no_more_than_there_is() -> Result<()> {
    if !can("creates_at_once_promise_no_more_than_there_is")? {
        return Ok(());
    }
    let rig = Rig::thin(128, "")?;
    let client = &rig.under(Fault::AtOnce);
    let names: Vec<_> = (0..16).map(|number| format!("v{number}")).collect();
    let made = std::thread::scope(|scope| {
        let create = |name: &String| client.create_volume(create(name, 16 * MIB, mount()));
        let calls: Vec<_> = names.iter().map(|name| scope.spawn(move || create(name))).collect();
        calls.into_iter().map(|call| call.join().expect("a call panicked")).collect::<Vec<_>>()
    });
    let refused = made.iter().filter_map(|made| made.as_ref().err()).collect::<Vec<_>>();
    ensure!(refused.iter().all(|status| status.code() == Code::ResourceExhausted), "{refused:?}");
    assert_eq!(made.len() - refused.len(), 8, "{refused:?}");
    assert_eq!(rig.group.volumes()?.len(), 1 + 8);
    assert_eq!(rig.available()?, 0);
    Ok(())
}
