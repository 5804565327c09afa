//! What a later release wrote is refused, named, and left as it is: whatever is in it but its version.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, MIB, Volume, create, mount};
use serde_json::json;
use tonic::{Code, Status};

use crate::{DISKS, FILES, Left, MARK, POD, boot, needs_root};

fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>, codes: &[Code], words: &[&str]) -> Result<()> {
    let status = answer.expect_err("what a later release wrote was taken");
    ensure!(codes.contains(&status.code()), "{status:?}");
    for word in words {
        ensure!(status.message().contains(word), "{word:?} is not in {status:?}");
    }
    Ok(())
}

fn later(left: &Left, path: &str) -> Result<Vec<u8>> {
    left.put(path, &json!({"version": 2, "form": "of another kind"}))?;
    Ok(fs::read(left.path(path))?)
}

#[test]
fn a_marker_of_a_later_release_is_not_served() -> Result<()> {
    if !needs_root("a_marker_of_a_later_release_is_not_served")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let marker = "roots/files/.dunnage/instance.json";
    let text = later(&left, marker)?;
    left.host.spawn()?;
    left.host.wait_for(DISKS)?;
    left.host.wait_for_log("it is tried again backend=files")?;
    let log = left.host.log();
    ensure!(log.contains("has version 2, this release knows 1") && log.contains(marker), "{log}");
    let init = left.host.run(&["init"])?;
    ensure!(!init.status.success(), "init marked it anew");
    assert_eq!(fs::read(left.path(marker))?, text);
    Ok(())
}

#[test]
fn a_job_of_a_later_release_is_left_and_the_backend_not_served() -> Result<()> {
    if !needs_root("a_job_of_a_later_release_is_left_and_the_backend_not_served")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    left.add_copy()?;
    let job = "roots/disks/.dunnage/jobs/snapshot.nightly";
    let text = later(&left, job)?;
    left.host.spawn()?;
    left.host.wait_for(FILES)?;
    left.host.wait_for_log("it is tried again backend=disks")?;
    let log = left.host.log();
    ensure!(log.contains("has version 2, this release knows 1") && log.contains(job), "{log}");
    assert_eq!(fs::read(left.path(job))?, text);
    Ok(())
}

#[test]
fn what_a_later_release_remembers_of_a_backend_is_left_and_the_backend_not_served() -> Result<()> {
    if !needs_root("what_a_later_release_remembers_of_a_backend_is_left_and_the_backend_not_served")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let memory = "state/backends/disks.json";
    let text = later(&left, memory)?;
    left.host.spawn()?;
    left.host.wait_for(FILES)?;
    left.host.wait_for_log("it is tried again backend=disks")?;
    let log = left.host.log();
    ensure!(log.contains("has version 2, this release knows 1") && log.contains(memory), "{log}");
    assert_eq!(fs::read(left.path(memory))?, text);
    Ok(())
}

#[test]
fn a_record_of_a_volume_of_a_later_release_is_refused() -> Result<()> {
    if !needs_root("a_record_of_a_volume_of_a_later_release_is_refused")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let record = "roots/files/.dunnage/volumes/notes";
    let text = later(&left, record)?;
    left.host.restart()?;
    let files = left.host.client(FILES)?.under("dir", Fault::LaterRecord);
    let volume_id = left.ids["notes"].clone();
    let words = ["has version 2, this release knows 1", record];
    let codes = [Code::FailedPrecondition];
    is_refused(files.create_volume(create("notes", 16 * MIB, mount())), &codes, &words)?;
    is_refused(
        files.delete_volume(csi::DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() }),
        &codes,
        &words,
    )?;
    is_refused(files.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id }), &codes, &words)?;
    assert_eq!(files.list_volumes(Default::default())?.entries.len(), 2, "it hides the others");
    assert_eq!(fs::read(left.path(record))?, text);
    Ok(())
}

#[test]
fn a_record_of_what_is_mounted_of_a_later_release_is_refused() -> Result<()> {
    if !needs_root("a_record_of_what_is_mounted_of_a_later_release_is_refused")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let path = boot(&left.host)?.join(format!("{}.json", left.ids["database"]));
    let relative = path.strip_prefix(left.path(""))?.display().to_string();
    let text = later(&left, &relative)?;
    left.host.restart()?;
    let disks = left.host.client(DISKS)?.under("image", Fault::LaterRecord);
    let made = csi::Volume { volume_id: left.ids["database"].clone(), ..Default::default() };
    let volume = Volume::new(made, mount(), &left.path("pods/database"), true);
    let (codes, words) = ([Code::Internal], ["was written by a later release", relative.as_str(), "unmount"]);
    is_refused(disks.node_stage_volume(volume.stage()), &codes, &words)?;
    is_refused(disks.node_publish_volume(volume.publish()), &codes, &words)?;
    is_refused(disks.node_unpublish_volume(volume.unpublish()), &codes, &words)?;
    is_refused(disks.node_unstage_volume(volume.unstage()), &codes, &words)?;
    is_refused(disks.delete_volume(volume.delete()), &codes, &words)?;
    assert_eq!(fs::read(&path)?, text);
    Ok(())
}

#[test]
fn a_mark_of_an_ephemeral_volume_of_a_later_release_is_refused_and_nothing_deleted() -> Result<()> {
    if !needs_root("a_mark_of_an_ephemeral_volume_of_a_later_release_is_refused_and_nothing_deleted")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let text = later(&left, &format!("state/ephemeral/{MARK}"))?;
    left.host.restart()?;
    let files = left.host.client(FILES)?.under("dir", Fault::LaterRecord);
    let request = csi::NodeUnpublishVolumeRequest { volume_id: POD.0.into(), target_path: POD.1.into() };
    let words = ["has version 2, this release knows 1", "state/ephemeral"];
    is_refused(files.node_unpublish_volume(request), &[Code::FailedPrecondition], &words)?;
    assert_eq!(files.list_volumes(Default::default())?.entries.len(), 3);
    assert_eq!(fs::read(left.path("state/ephemeral").join(MARK))?, text);
    Ok(())
}

#[test]
fn a_later_releases_word_that_a_device_was_blank_formats_nothing() -> Result<()> {
    if !needs_root("a_later_releases_word_that_a_device_was_blank_formats_nothing")? {
        return Ok(());
    }
    let mut left = Left::new()?;
    let intent = format!("state/node/{}.formatting", left.ids["half"]);
    let identity = format!("image:{}", left.ids["half"]);
    left.put(&intent, &json!({"version": 2, "identity": identity}))?;
    let path = left.path("roots/disks/images/half");
    let mut image = fs::File::options().write(true).open(&path)?;
    image.seek(SeekFrom::Start(9 << 10))?;
    image.write_all(b"a part of a file system")?;
    drop(image);
    let before = fs::read(&path)?;
    left.host.restart()?;
    let made = csi::Volume { volume_id: left.ids["half"].clone(), ..Default::default() };
    let half = Volume::new(made, mount(), &left.path("pods/half"), true);
    let answer = left.host.client(DISKS)?.under("image", Fault::LaterRecord).node_stage_volume(half.stage());
    is_refused(answer, &[Code::FailedPrecondition], &["was written by a later release", &intent])?;
    ensure!(fs::read(&path)? == before, "the device was written to");
    Ok(())
}
