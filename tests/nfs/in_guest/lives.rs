//! Whole lives.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, MIB, expand};
use tonic::Code;

use super::{Rig, can_serve, entries, is_mounted, line, refused, with_flags};

#[test]
fn a_volume_is_a_folder_of_the_export_from_its_making_to_its_end() -> Result<()> {
    if !can_serve("a_volume_is_a_folder_of_the_export_from_its_making_to_its_end")? {
        return Ok(());
    }
    let mut rig = Rig::new("mode: \"0770\"\nversion: \"4.1\"")?;
    let mut volume = rig.create("a")?;
    ensure!(rig.create("a")?.made == volume.made, "the same request made another volume");
    assert_eq!(fs::metadata(rig.on_server("volumes/a"))?.mode() & 0o7777, 0o770);
    volume.capability = with_flags(&["nosuid", "noexec"]);
    for _ in 0..2 {
        rig.shares.node_publish_volume(volume.publish())?;
    }
    let mounted = line(&volume.target)?;
    for word in ["nosuid", "noexec", " nfs4 ", "/volumes/a ", "vers=4.1", "hard"] {
        ensure!(mounted.contains(word), "{word} is not in {mounted}");
    }
    fs::write(volume.target.join("data"), "words")?;
    assert_eq!(fs::read(rig.on_server("volumes/a/data"))?, b"words");
    // The same volume a second time on this node, to be read alone.
    let mut reader = volume.clone();
    reader.target = volume.target.with_file_name("reader");
    let readonly = csi::NodePublishVolumeRequest { readonly: true, ..reader.publish() };
    rig.shares.node_publish_volume(readonly)?;
    assert_eq!(fs::read(reader.target.join("data"))?, b"words");
    let error = fs::write(reader.target.join("data"), "others").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "{error}");

    let usage = rig.shares.node_get_volume_stats(volume.stats())?.usage;
    ensure!(usage.len() == 2 && usage.iter().all(|one| one.total > 0), "{usage:?}");
    assert_eq!(rig.shares.controller_expand_volume(expand(&volume.id(), 2 * MIB))?.capacity_bytes, 2 * MIB);
    refused(rig.under(Fault::InUse).delete_volume(volume.delete()), Code::FailedPrecondition, "is published")?;
    // A host that is killed leaves what is mounted, and the next one takes it away.
    rig.restart()?;
    assert_eq!(fs::read(volume.target.join("data"))?, b"words");
    rig.under(Fault::Killed).node_publish_volume(volume.publish())?;
    for used in [&volume, &reader] {
        for _ in 0..2 {
            rig.shares.node_unpublish_volume(used.unpublish())?;
        }
        ensure!(!used.target.exists(), "{} is left", used.target.display());
    }
    for _ in 0..2 {
        rig.shares.delete_volume(volume.delete())?;
    }
    assert_eq!(entries(&rig.on_server("volumes"))?, [""; 0]);
    assert_eq!(entries(&rig.on_server(".dunnage/volumes"))?, [""; 0]);
    rig.wait_for_trash()
}

#[test]
fn options_are_applied_or_refused_by_name() -> Result<()> {
    if !can_serve("options_are_applied_or_refused_by_name")? {
        return Ok(());
    }
    let rig = Rig::new("options: [\"timeo=300\", \"nconnect=2\"]")?;
    let mut volume = rig.create("a")?;
    for (flag, words) in [
        ("timeo=77", "\"timeo\" cannot be a single volume's"),
        ("sloppy", "\"sloppy\""),
        ("colour=red", "\"colour\""),
        ("vers=4.0", "\"vers\""),
        ("addr=127.0.0.1", "\"addr\""),
        ("rsize=many", "takes no mount option \"rsize\" like this"),
    ] {
        volume.capability = with_flags(&[flag]);
        let wrong = rig.under(Fault::BadRequest).node_publish_volume(volume.publish());
        refused(wrong, Code::InvalidArgument, words)?;
        ensure!(!volume.target.exists(), "{flag} left something");
    }
    volume.capability = with_flags(&["soft", "noac", "nodev", "rsize=65536"]);
    rig.shares.node_publish_volume(volume.publish())?;
    let mounted = line(&volume.target)?;
    for word in ["soft,", "noac", "nodev", "timeo=300", "nconnect=2", "rsize=65536"] {
        ensure!(mounted.contains(word), "{word} is not in {mounted}");
    }
    rig.shares.node_unpublish_volume(volume.unpublish())?;
    ensure!(!is_mounted(&volume.target), "it is left");
    Ok(())
}
