//! Whole lives of volumes.

use std::fs;
use std::thread;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, ScsiDisk, block, create, expand, filesystem, mount, mounts_beneath};
use tonic::Code;

use super::{MIDDLE, Rig, SIZE, byte, can, is, write};

#[test]
fn a_disk_lives_as_a_volume_and_is_free_and_wiped_after_it() -> Result<()> {
    if !can("a_disk_lives_as_a_volume_and_is_free_and_wiped_after_it")? {
        return Ok(());
    }
    let mut rig = Rig::on(2, "")?;
    let room = rig.capacity()?;
    assert_eq!((room.available_capacity, room.maximum_volume_size), (2 * SIZE, Some(SIZE)));
    let volume = rig.create("a", 64 * MIB, mount())?;
    assert_eq!(volume.made.capacity_bytes, SIZE);
    assert_eq!(rig.create("a", 64 * MIB, mount())?.made, volume.made);
    assert_eq!(rig.create("a", 80 * MIB, mount())?.made, volume.made);
    is(rig.create("a", SIZE + 1, mount()), Code::AlreadyExists, "")?;
    rig.wait_for_free(1)?;
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), vec![7; 16 << 20])?;
    is(rig.delete(&volume), Code::FailedPrecondition, "")?;
    rig.restart()?;
    rig.bring(&volume)?;
    assert_eq!(fs::read(volume.target.join("data"))?.len(), 16 << 20);
    // As large as the disk, which does not grow.
    let grown = rig.client.controller_expand_volume(expand(&volume.id(), SIZE))?;
    ensure!(grown.capacity_bytes == SIZE, "{grown:?}");
    is(rig.client.controller_expand_volume(expand(&volume.id(), SIZE + 1)), Code::OutOfRange, "as large as its disk")?;
    rig.take(&volume)?;
    rig.client.node_unstage_volume(volume.unstage())?;
    // The file system is that of the volume, and lies on the disk itself.
    let device = rig.disks[rig.place("a")?].path().to_owned();
    ensure!(byte(&device, 1080)? == 0x53, "there is no ext4 on {}", device.display());
    rig.bring(&volume)?;
    rig.take(&volume)?;
    ensure!(rig.record("a")?.contains("\"content\":\"ext4:"), "{}", rig.record("a")?);
    rig.delete(&volume)?;
    rig.delete(&volume)?;
    rig.wait_for_free(2)?;
    for place in [0, 1080, MIDDLE, SIZE - 1] {
        ensure!(byte(&device, place)? == 0, "the byte at {place} is left");
    }
    assert!(rig.client.list_volumes(Default::default())?.entries.is_empty());
    assert!(mounts_beneath(rig.host.setup().scratch().path())?.is_empty());
    assert_eq!(fs::read_dir(rig.host.setup().root("disks").join("wiping"))?.count(), 0);
    Ok(())
}

#[test]
fn a_raw_volume_is_the_whole_disk_and_the_next_one_reads_zero() -> Result<()> {
    if !can("a_raw_volume_is_the_whole_disk_and_the_next_one_reads_zero")? {
        return Ok(());
    }
    let mut rig = Rig::on(1, "")?;
    for turn in 0..2 {
        let volume = rig.create("raw", 1, block())?;
        rig.bring(&volume)?;
        for place in [0, 3 * MIB, MIDDLE, SIZE - 1] {
            ensure!(byte(&volume.target, place)? == 0, "turn {turn}: the byte at {place} is not zero");
            write(&volume.target, place, &[7])?;
        }
        // What a workload has written there tells nobody that the disk is somebody else's.
        rig.take(&volume)?;
        rig.restart()?;
        rig.bring(&volume)?;
        ensure!(
            [0, 3 * MIB, MIDDLE, SIZE - 1].iter().all(|place| byte(&volume.target, *place).is_ok_and(|it| it == 7))
        );
        rig.take(&volume)?;
        rig.delete(&volume)?;
        rig.wait_for_free(1)?;
    }
    Ok(())
}

#[test]
fn the_smallest_that_fits_is_taken_and_a_limit_is_kept() -> Result<()> {
    if !can("the_smallest_that_fits_is_taken_and_a_limit_is_kept")? {
        return Ok(());
    }
    let disks = ScsiDisk::lend(1)?;
    let parts = disks[0].part(&[40, 20, 30])?;
    // A pattern for all three, and the disk that they are on, which is left alone.
    let patterns = [format!("{}[1-9]", disks[0].path().display()), disks[0].path().display().to_string()];
    let rig = Rig::of(disks, &patterns, "partitions: true\nsize: {max: 64MiB}")?;
    let room = rig.capacity()?;
    assert_eq!((room.available_capacity, room.maximum_volume_size), (90 * MIB, Some(40 * MIB)));
    let sized = |name: &str, required, limit| {
        let mut request = create(name, required, mount());
        request.capacity_range = Some(csi::CapacityRange { required_bytes: required, limit_bytes: limit });
        rig.client.create_volume(request).map(|made| made.volume.expect("no volume").capacity_bytes)
    };
    is(sized("x", 0, 18 * MIB), Code::OutOfRange, "none has such a size")?;
    is(sized("x", 41 * MIB, 0), Code::OutOfRange, "none has such a size")?;
    is(sized("x", 21 * MIB, 29 * MIB), Code::OutOfRange, "none has such a size")?;
    is(rig.create("x", 1, filesystem("xfs")).map(drop), Code::OutOfRange, "")?;
    assert_eq!(sized("b", 0, 0)?, 20 * MIB);
    assert_eq!(sized("c", 20 * MIB, 30 * MIB)?, 30 * MIB);
    is(sized("x", 0, 30 * MIB), Code::ResourceExhausted, "it is a volume")?;
    assert_eq!(sized("a", 1, 0)?, 40 * MIB);
    is(sized("x", 1, 0), Code::ResourceExhausted, "no disk is free")?;
    ensure!(parts.iter().all(|part| part.exists()));
    Ok(())
}

#[test]
fn two_creates_at_once_never_get_one_disk() -> Result<()> {
    if !can("two_creates_at_once_never_get_one_disk")? {
        return Ok(());
    }
    let mut rig = Rig::on(3, "")?;
    for turn in 0..2 {
        let made: Vec<_> = thread::scope(|scope| {
            let calls: Vec<_> = (0..6)
                .map(|number| {
                    let (client, name) = (rig.client.clone(), format!("v{turn}-{number}"));
                    scope.spawn(move || client.create_volume(create(&name, 64 * MIB, mount())))
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 3, "{refused:?}");
        assert!(refused.iter().all(|refused| refused.as_ref().is_err_and(|it| it.code() == Code::ResourceExhausted)));
        let made: Vec<_> = made.into_iter().filter_map(|made| made.ok()?.volume).collect();
        let mut places = Vec::new();
        for entry in fs::read_dir(rig.host.setup().root("disks").join(".dunnage/volumes"))? {
            places.push(rig.place(&entry?.file_name().to_string_lossy())?);
        }
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        rig.restart()?;
        for volume in made {
            rig.client.delete_volume(csi::DeleteVolumeRequest { volume_id: volume.volume_id, ..Default::default() })?;
        }
        rig.wait_for_free(3)?;
    }
    Ok(())
}

#[test]
fn a_partition_that_was_made_larger_grows_its_volume() -> Result<()> {
    if !can("a_partition_that_was_made_larger_grows_its_volume")? {
        return Ok(());
    }
    let disks = ScsiDisk::lend(1)?;
    let parts = disks[0].part(&[32])?;
    let rig = Rig::of(disks, &[parts[0].display().to_string()], "partitions: true")?;
    let volume = rig.create("a", 1, mount())?;
    assert_eq!(volume.made.capacity_bytes, 32 * MIB);
    rig.bring(&volume)?;
    fs::write(volume.target.join("data"), "data")?;
    is(rig.client.controller_expand_volume(expand(&volume.id(), 64 * MIB)), Code::OutOfRange, "")?;
    rig.disks[0].grow_part(1)?;
    let grown = rig.client.controller_expand_volume(expand(&volume.id(), 64 * MIB))?;
    let size = grown.capacity_bytes;
    ensure!(size > 90 * MIB && grown.node_expansion_required, "{grown:?}");
    rig.client.node_expand_volume(volume.expand_on_node(size))?;
    let seen = rustix::fs::statvfs(&volume.target)?;
    ensure!(seen.f_blocks * seen.f_frsize > 80 * MIB as u64, "it has {} blocks", seen.f_blocks);
    rig.take(&volume)?;
    rig.bring(&volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    rig.take(&volume)?;
    rig.delete(&volume)?;
    Ok(())
}
