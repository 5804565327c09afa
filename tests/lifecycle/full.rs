//! A state folder on a disk that is full.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Fault, MIB, Need, Setup, Volume, can_run, create, mount, mount_disk};
use tonic::Code;

use crate::{DUNNAGE, IMAGE, is};

#[test]
fn a_full_state_folder_is_no_call_that_still_runs() -> Result<()> {
    if !can_run("a_full_state_folder_is_no_call_that_still_runs", &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("disks", "image", "ephemeral: {max_size: 16Mi}")?;
    let state = setup.scratch().folder("state")?;
    mount_disk(&setup.scratch().path().join("state.img"), 16, &state)?;
    let host = setup.start(DUNNAGE)?;
    let client = host.client(IMAGE)?;
    let made = client.create_volume(create("a", 16 * MIB, mount()))?.volume.context("no volume")?;
    let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pods"), true);
    let filler = state.join("filler");
    fill(&mut File::create(&filler)?)?;
    let sick = client.under("image", Fault::StateUnwritable);
    let message = is("stage", sick.node_stage_volume(volume.stage()), Code::FailedPrecondition)?;
    ensure!(message.contains(state.to_str().unwrap()) && message.contains("free some room"), "{message}");
    let mut inline = volume.publish();
    inline.volume_id = "csi-1".into();
    inline.volume_context = [("csi.storage.k8s.io/ephemeral".into(), "true".into())].into();
    let message = is("inline", sick.node_publish_volume(inline), Code::FailedPrecondition)?;
    ensure!(message.contains("free some room"), "{message}");
    std::fs::remove_file(&filler)?;
    client.node_stage_volume(volume.stage())?;
    client.node_publish_volume(volume.publish())?;
    crate::take(&client, &volume)
}

/// Writes until the disk takes not one byte more.
fn fill(file: &mut File) -> Result<()> {
    for size in [1 << 16, 1] {
        let bytes = vec![0; size];
        loop {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    file.sync_all()?;
    Ok(())
}
