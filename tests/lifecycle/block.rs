//! Raw block volumes and what is in them.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, block, expand};

use crate::{bring, rig, take};

const BYTES: usize = 4 << 20;

fn all(path: &std::path::Path, bytes: usize) -> Result<Vec<u8>> {
    let mut text = vec![1; bytes];
    File::open(path)?.read_exact(&mut text)?;
    Ok(text)
}

#[test]
fn a_new_block_volume_has_no_byte_of_an_earlier_one() -> Result<()> {
    let Some(rig) = rig("a_new_block_volume_has_no_byte_of_an_earlier_one")? else { return Ok(()) };
    // The same name, and another: neither may meet what the first tenant wrote.
    for name in ["a", "a", "b"] {
        let volume = rig.sized(&rig.disks, name, block(), BYTES as i64)?;
        bring(&rig.disks, &volume)?;
        ensure!(all(&volume.target, BYTES)?.iter().all(|byte| *byte == 0), "{name} is not blank");
        let mut device = File::options().write(true).open(&volume.target)?;
        device.write_all(&vec![0xEE; BYTES])?;
        device.sync_all()?;
        drop(device);
        rig.disks.controller_expand_volume(expand(&volume.id(), 2 * BYTES as i64))?;
        rig.disks.node_expand_volume(volume.expand_on_node(2 * BYTES as i64))?;
        let text = all(&volume.target, 2 * BYTES)?;
        ensure!(text[..BYTES].iter().all(|byte| *byte == 0xEE), "growing changed the data");
        ensure!(text[BYTES..].iter().all(|byte| *byte == 0), "what was grown is not blank");
        take(&rig.disks, &volume)?;
        rig.disks.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn data_survives_unstage_and_stage_on_raw_block() -> Result<()> {
    let Some(rig) = rig("data_survives_unstage_and_stage_on_raw_block")? else { return Ok(()) };
    let volume = rig.sized(&rig.disks, "a", block(), 16 * MIB)?;
    bring(&rig.disks, &volume)?;
    File::options().write(true).open(&volume.target)?.write_all(b"data")?;
    take(&rig.disks, &volume)?;
    bring(&rig.disks, &volume)?;
    assert_eq!(all(&volume.target, 4)?, b"data");
    take(&rig.disks, &volume)
}
