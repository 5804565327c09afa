//! Whole lives of thick volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, block, create, filesystem, mount, mounts_beneath};
use tonic::Code;

use super::{Rig, bytes_of, can, is};

#[test]
fn a_thick_volume_lives_grows_while_it_is_used_and_leaves_nothing() -> Result<()> {
    if !can("a_thick_volume_lives_grows_while_it_is_used_and_leaves_nothing")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[512], "")?;
    let before = rig.available()?;
    let volume = rig.create("a", 65 * MIB, mount())?;
    // Whole extents.
    assert_eq!(volume.made.capacity_bytes, 68 * MIB);
    assert_eq!(rig.available()?, before - 68 * MIB);
    let again = rig.create("a", 65 * MIB, mount())?;
    assert_eq!(again.made, volume.made);
    let again = create("a", 128 * MIB, mount());
    is(rig.under(Fault::OtherArguments).create_volume(again), Code::AlreadyExists, "")?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    is(rig.under(Fault::InUse).delete_volume(volume.delete()), Code::FailedPrecondition, "")?;
    rig.restart()?;
    rig.grow(&volume, 128 * MIB)?;
    let seen = rustix::fs::statvfs(&volume.target)?;
    ensure!(seen.f_blocks * seen.f_frsize > 100 * MIB as u64, "it has {} blocks", seen.f_blocks);
    rig.take(&volume)?;
    ensure!(rig.group.active()?.is_empty(), "its device is left: {:?}", rig.group.active()?);
    rig.bring(&volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    rig.take(&volume)?;
    // Once more, where there is nothing to do.
    rig.client.node_unstage_volume(volume.unstage())?;
    rig.delete(&volume)?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])?;
    assert_eq!(rig.available()?, before);
    assert!(mounts_beneath(rig.host.setup().scratch().path())?.is_empty());
    Ok(())
}

#[test]
fn a_volume_lies_on_the_disks_as_its_class_says_and_keeps_its_bytes_when_it_grows() -> Result<()> {
    if !can("a_volume_lies_on_the_disks_as_its_class_says_and_keeps_its_bytes_when_it_grows")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128, 128, 128, 128], "")?;
    for (layout, parameters) in [
        ("striped", &[("type", "striped"), ("stripes", "2")][..]),
        ("raid,raid1", &[("type", "raid1")]),
        ("raid,raid10", &[("type", "raid10"), ("stripes", "2"), ("mirrors", "1")]),
    ] {
        let mut request = create("a", 16 * MIB, block());
        request.parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let volume = rig.create_with(request)?;
        let logical = format!("{}/vol-a", rig.group.name());
        assert_eq!(rig.group.lvm(&["lvs", "--noheadings", "--options", "lv_layout", &logical])?, layout);
        rig.bring(&volume)?;
        let device = fs::File::options().read(true).write(true).open(&volume.target)?;
        device.write_all_at(&[7; 4096], 16 * MIB as u64 - 4096)?;
        device.sync_all()?;
        drop(device);
        rig.grow(&volume, 32 * MIB)?;
        rig.take(&volume)?;
        ensure!(rig.group.active()?.is_empty(), "{layout}: {:?} is left", rig.group.active()?);
        rig.bring(&volume)?;
        let bytes = bytes_of(&volume)?;
        assert_eq!(bytes.len(), 32 * MIB as usize);
        let (written, rest) = (16 * MIB as usize - 4096, 16 * MIB as usize);
        ensure!(bytes[written..rest].iter().all(|byte| *byte == 7), "{layout}: what was written is lost");
        ensure!(bytes[..written].iter().chain(&bytes[rest..]).all(|byte| *byte == 0), "{layout}: not all else is zero");
        rig.take(&volume)?;
        rig.delete(&volume)?;
        rig.is_left_with(&[])?;
    }
    Ok(())
}

#[test]
fn what_a_class_cannot_have_is_refused_and_leaves_nothing() -> Result<()> {
    if !can("what_a_class_cannot_have_is_refused_and_leaves_nothing")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128], "")?;
    let with = |fault, pairs: &[(&str, &str)], bytes| {
        let mut request = create("a", bytes, mount());
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        request.parameters = pairs.collect::<BTreeMap<_, _>>().into_iter().collect();
        rig.under(fault).create_volume(request)
    };
    is(with(Fault::BadRequest, &[("type", "raid7")], 16 * MIB), Code::InvalidArgument, "raid10")?;
    is(with(Fault::BadRequest, &[("stripes", "2")], 16 * MIB), Code::InvalidArgument, "no meaning")?;
    // There is one disk alone.
    is(with(Fault::NoRoom, &[("type", "raid1")], 16 * MIB), Code::ResourceExhausted, "")?;
    is(with(Fault::NoRoom, &[], 4096 * MIB), Code::OutOfRange, "larger than the store")?;
    is(with(Fault::NoRoom, &[], 126 * MIB), Code::OutOfRange, "larger than the store")?;
    rig.is_left_with(&[])
}

#[test]
fn names_of_any_kind_become_volumes() -> Result<()> {
    if !can("names_of_any_kind_become_volumes")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[256], "")?;
    let names =
        ["../../etc/passwd", "x_tdata", "-----", "Ümläut 名前", &"n".repeat(128), "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p"];
    let mut volumes = Vec::new();
    for name in names {
        let made = rig.client.create_volume(create(name, 16 * MIB, mount()))?.volume.unwrap();
        volumes.push((name, made));
    }
    rig.restart()?;
    for (name, made) in &volumes {
        let again = rig.client.create_volume(create(name, 16 * MIB, mount()))?.volume.unwrap();
        assert_eq!(again, *made, "{name}");
    }
    let listed = rig.client.list_volumes(Default::default())?.entries;
    assert_eq!(listed.len(), names.len());
    let volume = dunnage_test_common::Volume::new(
        volumes[1].1.clone(),
        filesystem("ext4"),
        &rig.host.setup().scratch().path().join("pods"),
        true,
    );
    rig.bring(&volume)?;
    rig.take(&volume)
}
