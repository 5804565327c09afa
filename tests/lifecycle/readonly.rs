//! Read-only is read-only: for files, and for a raw device.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{block, mount};
use tonic::Code;

use crate::{Mode, bring, is, rig, take, with_mode};

#[test]
fn a_read_only_publish_of_a_file_system_takes_no_write() -> Result<()> {
    let Some(rig) = rig("a_read_only_publish_of_a_file_system_takes_no_write")? else { return Ok(()) };
    for client in [&rig.files, &rig.disks] {
        let volume = rig.volume(client, "a", mount())?;
        bring(client, &volume)?;
        fs::write(volume.target.join("data"), "data")?;
        let mut reader = volume.clone();
        reader.target.set_file_name("reader");
        let readonly = csi::NodePublishVolumeRequest { readonly: true, ..reader.publish() };
        client.node_publish_volume(readonly.clone())?;
        assert_eq!(client.node_publish_volume(readonly)?, Default::default());
        assert_eq!(fs::read_to_string(reader.target.join("data"))?, "data");
        for error in [
            fs::write(reader.target.join("data"), "changed").unwrap_err(),
            fs::write(reader.target.join("new"), "").unwrap_err(),
            fs::remove_file(reader.target.join("data")).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        }
        // The other target is as it was.
        fs::write(volume.target.join("data"), "more")?;
        client.node_unpublish_volume(reader.unpublish())?;
        take(client, &volume)?;
        client.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn a_volume_staged_for_readers_alone_is_read_only() -> Result<()> {
    let Some(rig) = rig("a_volume_staged_for_readers_alone_is_read_only")? else { return Ok(()) };
    let writer = rig.volume(&rig.disks, "a", mount())?;
    bring(&rig.disks, &writer)?;
    fs::write(writer.target.join("data"), "data")?;
    take(&rig.disks, &writer)?;
    let mut reader = writer.clone();
    reader.capability = with_mode(mount(), Mode::SingleNodeReaderOnly);
    bring(&rig.disks, &reader)?;
    assert_eq!(fs::read_to_string(reader.target.join("data"))?, "data");
    for path in [&reader.target, reader.staging.as_ref().unwrap()] {
        let error = fs::write(path.join("data"), "changed").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{}", path.display());
    }
    take(&rig.disks, &reader)
}

#[test]
fn a_read_only_raw_block_takes_no_write_and_is_writable_again_afterwards() -> Result<()> {
    let Some(rig) = rig("a_read_only_raw_block_takes_no_write_and_is_writable_again_afterwards")? else {
        return Ok(());
    };
    let volume = rig.volume(&rig.disks, "a", block())?;
    rig.disks.node_stage_volume(volume.stage())?;
    let readonly = csi::NodePublishVolumeRequest { readonly: true, ..volume.publish() };
    rig.disks.node_publish_volume(readonly)?;
    let written =
        || File::options().write(true).open(&volume.target).and_then(|mut device| device.write_all(&[7; 4096]));
    ensure!(written().is_err(), "a read-only device was written to");
    let mut writer = volume.clone();
    writer.target.set_file_name("writer");
    let message = is("a writer beside", rig.disks.node_publish_volume(writer.publish()), Code::FailedPrecondition)?;
    ensure!(message.contains("read-only"), "{message}");
    rig.disks.node_unpublish_volume(volume.unpublish())?;
    rig.disks.node_publish_volume(volume.publish())?;
    written()?;
    take(&rig.disks, &volume)
}
