//! A device that cannot be read, by an image on a file system whose reads fail.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use dunnage_test_common::{Client, Fault, Host, MIB, Volume, filesystem, loop_devices_beneath, mounts_beneath};
use dunnage_testkit::{BadSectors, FuseStore};
use tonic::Code;

use crate::{DUNNAGE, FAULTY, needs_root, setup, volume};

struct Rig {
    store: FuseStore,
    host: Host,
    client: Client,
}

fn rig(test: &str) -> Result<Option<Rig>> {
    if !needs_root(test)? {
        return Ok(None);
    }
    let mut host = setup("image", "")?.prepare(DUNNAGE)?;
    let store = FuseStore::mount(&host.setup().root("faulty"))?;
    host.init()?;
    host.restart()?;
    let client = host.client(FAULTY)?;
    Ok(Some(Rig { store, host, client }))
}

impl Rig {
    fn bad(&self, volume: &str, from: i64) -> Result<BadSectors> {
        let image = self.host.setup().root("faulty").join("images").join(volume);
        Ok(BadSectors { inode: fs::metadata(image)?.ino(), from: from.cast_unsigned() })
    }

    fn is_refused(&self, volume: &Volume) -> Result<()> {
        let scratch = self.host.setup().scratch().path();
        for _ in 0..2 {
            let status = self
                .client
                .under("image", Fault::ReadErrors)
                .node_stage_volume(volume.stage())
                .expect_err("it was staged");
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            for words in ["cannot read /dev/loop", "neither mounted nor formatted", "check the device"] {
                ensure!(status.message().contains(words), "{words:?} is not in {status:?}");
            }
        }
        ensure!(mounts_beneath(&scratch.join("pods"))?.is_empty(), "a mount is left");
        ensure!(loop_devices_beneath(scratch).is_empty(), "a loop device is left");
        ensure!(!volume.staging.as_ref().unwrap().exists(), "a folder is left");
        Ok(())
    }
}

#[test]
fn a_blank_device_that_cannot_be_read_everywhere_is_never_formatted_and_is_once_it_can() -> Result<()> {
    let test = "a_blank_device_that_cannot_be_read_everywhere_is_never_formatted_and_is_once_it_can";
    let Some(rig) = rig(test)? else { return Ok(()) };
    let image = rig.host.setup().root("faulty").join("images/a");
    for fs_type in ["ext4", ""] {
        let volume = volume(&rig.host, &rig.client, "a", filesystem(fs_type))?;
        // From the first byte on, and only at the end, where a backup of a mark may lie.
        for from in [0, 16 * MIB - 4096] {
            rig.store.fail_reads(rig.bad("a", from)?);
            rig.is_refused(&volume)?;
            rig.store.fail_reads(None);
            ensure!(fs::read(&image)?.iter().all(|byte| *byte == 0), "the device was written to");
        }
        rig.client.node_stage_volume(volume.stage())?;
        rig.client.node_unstage_volume(volume.unstage())?;
        rig.client.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn a_volume_with_data_whose_device_cannot_be_read_has_its_data_once_it_can() -> Result<()> {
    let test = "a_volume_with_data_whose_device_cannot_be_read_has_its_data_once_it_can";
    let Some(rig) = rig(test)? else { return Ok(()) };
    let volume = volume(&rig.host, &rig.client, "a", filesystem(""))?;
    rig.client.node_stage_volume(volume.stage())?;
    rig.client.node_publish_volume(volume.publish())?;
    fs::write(volume.target.join("data"), "data")?;
    rig.client.node_unpublish_volume(volume.unpublish())?;
    rig.client.node_unstage_volume(volume.unstage())?;
    let image = rig.host.setup().root("faulty").join("images/a");
    let before = fs::read(&image)?;
    rig.store.fail_reads(rig.bad("a", 0)?);
    rig.is_refused(&volume)?;
    rig.store.fail_reads(None);
    ensure!(fs::read(&image)? == before, "the device was written to");
    rig.client.node_stage_volume(volume.stage())?;
    rig.client.node_publish_volume(volume.publish())?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    rig.client.node_unpublish_volume(volume.unpublish())?;
    rig.client.node_unstage_volume(volume.unstage())?;
    Ok(())
}
