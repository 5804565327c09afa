//! Growth that a workload sees.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, expand, filesystem, mount};
use tonic::Code;

use crate::{bring, is, rig, size_of, take};

#[test]
fn a_file_system_grown_while_it_is_used_shows_it_in_statfs_and_stats() -> Result<()> {
    let Some(rig) = rig("a_file_system_grown_while_it_is_used_shows_it_in_statfs_and_stats")? else { return Ok(()) };
    for (fs_type, bytes) in [("xfs", 320 * MIB), ("btrfs", 128 * MIB)] {
        let volume = rig.sized(&rig.disks, fs_type, filesystem(fs_type), bytes)?;
        bring(&rig.disks, &volume)?;
        fs::write(volume.target.join("data"), "data")?;
        let before = size_of(&volume.target)?;
        let grown = rig.disks.controller_expand_volume(expand(&volume.id(), 2 * bytes))?;
        ensure!(grown.node_expansion_required && grown.capacity_bytes == 2 * bytes, "{grown:?}");
        // The first call already sees the device's new size.
        assert_eq!(rig.disks.node_expand_volume(volume.expand_on_node(2 * bytes))?.capacity_bytes, 2 * bytes);
        let after = size_of(&volume.target)?;
        ensure!(after >= before + bytes as u64 * 9 / 10, "{fs_type}: {before} became {after}");
        let usage = rig.disks.node_get_volume_stats(volume.stats())?.usage;
        ensure!(usage.iter().any(|one| one.total == after as i64), "{usage:?}");
        assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
        take(&rig.disks, &volume)?;
    }
    Ok(())
}

#[test]
fn a_file_system_grown_while_it_is_not_staged_has_its_size_at_the_next_stage() -> Result<()> {
    let Some(rig) = rig("a_file_system_grown_while_it_is_not_staged_has_its_size_at_the_next_stage")? else {
        return Ok(());
    };
    for (fs_type, bytes) in [("ext4", 64 * MIB), ("xfs", 320 * MIB), ("btrfs", 128 * MIB)] {
        let volume = rig.sized(&rig.disks, fs_type, filesystem(fs_type), bytes)?;
        bring(&rig.disks, &volume)?;
        let before = size_of(&volume.target)?;
        take(&rig.disks, &volume)?;
        rig.disks.controller_expand_volume(expand(&volume.id(), 2 * bytes))?;
        bring(&rig.disks, &volume)?;
        let after = size_of(&volume.target)?;
        ensure!(after >= before + bytes as u64 * 8 / 10, "{fs_type}: {before} became {after}");
        take(&rig.disks, &volume)?;
    }
    Ok(())
}

#[test]
fn a_node_expansion_before_the_controllers_is_out_of_range_and_elsewhere_not_found() -> Result<()> {
    let Some(rig) = rig("a_node_expansion_before_the_controllers_is_out_of_range_and_elsewhere_not_found")? else {
        return Ok(());
    };
    let volume = rig.sized(&rig.disks, "a", filesystem("xfs"), 320 * MIB)?;
    bring(&rig.disks, &volume)?;
    let early = rig.disks.node_expand_volume(volume.expand_on_node(640 * MIB));
    let message = is("early", early, Code::OutOfRange)?;
    ensure!(message.contains("controller"), "{message}");
    let mut elsewhere = volume.clone();
    elsewhere.target = Path::new("/tmp").into();
    is("elsewhere", rig.disks.node_expand_volume(elsewhere.expand_on_node(320 * MIB)), Code::NotFound)?;
    is("stats", rig.disks.node_get_volume_stats(elsewhere.stats()), Code::NotFound)?;
    take(&rig.disks, &volume)
}

#[test]
fn a_directory_grows_at_the_controller_alone() -> Result<()> {
    let Some(rig) = rig("a_directory_grows_at_the_controller_alone")? else { return Ok(()) };
    let volume = rig.volume(&rig.files, "a", mount())?;
    bring(&rig.files, &volume)?;
    let grown = rig.files.controller_expand_volume(expand(&volume.id(), 32 * MIB))?;
    ensure!(!grown.node_expansion_required && grown.capacity_bytes == 32 * MIB, "{grown:?}");
    let found = rig.files.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id: volume.id() })?;
    assert_eq!(found.volume.unwrap().capacity_bytes, 32 * MIB);
    // A smaller one is had already.
    assert_eq!(rig.files.controller_expand_volume(expand(&volume.id(), MIB))?.capacity_bytes, 32 * MIB);
    take(&rig.files, &volume)
}
