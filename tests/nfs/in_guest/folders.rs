//! What a class says of the folders, and what becomes of them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, Volume, create, mount};
use tonic::{Code, Status};

use super::{Rig, can_serve, entries, made, refused};

fn request(name: &str, parameters: &[(&str, &str)]) -> csi::CreateVolumeRequest {
    let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    csi::CreateVolumeRequest { parameters, ..create(name, MIB, mount()) }
}

/// A claim `namespace/claim` of a class with this template and policy.
fn claim(rig: &Rig, name: &str, claim: (&str, &str), folder: &str, on_delete: &str) -> Result<Volume, Status> {
    let parameters = [
        ("folder", folder),
        ("onDelete", on_delete),
        ("csi.storage.k8s.io/pvc/namespace", claim.0),
        ("csi.storage.k8s.io/pvc/name", claim.1),
    ];
    made(&rig.host, &rig.shares, request(name, &parameters))
}

const BY_CLAIM: &str = "${pvc.namespace}/${pvc.name}";

#[test]
fn a_class_names_the_folders_by_their_claims_and_no_two_meet() -> Result<()> {
    if !can_serve("a_class_names_the_folders_by_their_claims_and_no_two_meet")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let one = claim(&rig, "pvc-1", ("team", "data"), BY_CLAIM, "delete")?;
    ensure!(claim(&rig, "pvc-1", ("team", "data"), BY_CLAIM, "delete")?.made == one.made, "made twice");
    rig.shares.node_publish_volume(one.publish())?;
    fs::write(one.target.join("data"), "words")?;
    assert_eq!(fs::read(rig.on_server("volumes/team/data/data"))?, b"words");
    rig.restart()?;
    for (namespace, name, folder) in [
        ("team", "data", BY_CLAIM),
        ("team", "x", "${pvc.namespace}"),
        ("team", "data", "${pvc.namespace}/${pvc.name}/deeper"),
    ] {
        refused(
            claim(&rig, "pvc-2", (namespace, name), folder, "delete"),
            Code::FailedPrecondition,
            "cannot be a new",
        )?;
    }
    refused(claim(&rig, "pvc-2", ("..", "data"), BY_CLAIM, "delete"), Code::InvalidArgument, "cannot be the folder")?;
    refused(
        made(&rig.host, &rig.shares, request("pvc-2", &[("folder", BY_CLAIM)])),
        Code::InvalidArgument,
        "metadata",
    )?;
    let two = claim(&rig, "pvc-2", ("team", "more"), BY_CLAIM, "delete")?;
    rig.shares.delete_volume(two.delete())?;
    assert_eq!(entries(&rig.on_server("volumes/team"))?, ["data"]);
    rig.shares.node_unpublish_volume(one.unpublish())?;
    rig.shares.delete_volume(one.delete())?;
    // The folder above goes with the last one in it.
    ensure!(!rig.on_server("volumes/team").exists(), "the folder of the namespace is left");
    rig.wait_for_trash()?;
    // Its place is free again.
    let again = claim(&rig, "pvc-3", ("team", "data"), BY_CLAIM, "delete")?;
    rig.shares.delete_volume(again.delete())?;
    Ok(())
}

#[test]
fn files_of_a_deleted_volume_are_archived_or_retained_and_nobody_gets_them() -> Result<()> {
    if !can_serve("files_of_a_deleted_volume_are_archived_or_retained_and_nobody_gets_them")? {
        return Ok(());
    }
    let mut rig = Rig::new("on_delete: archive")?;
    let plain = rig.published("plain")?;
    let kept = claim(&rig, "pvc-1", ("team", "kept"), BY_CLAIM, "retain")?;
    rig.shares.node_publish_volume(kept.publish())?;
    for volume in [&plain, &kept] {
        fs::write(volume.target.join("data"), "words")?;
        rig.shares.node_unpublish_volume(volume.unpublish())?;
        for _ in 0..2 {
            rig.shares.delete_volume(volume.delete())?;
        }
    }
    assert_eq!(entries(&rig.on_server(".dunnage/volumes"))?, [""; 0]);
    let archived = entries(&rig.on_server("archive"))?;
    ensure!(archived.len() == 1 && archived[0].starts_with("plain."), "{archived:?}");
    assert_eq!(fs::read(rig.on_server("archive").join(&archived[0]).join("data"))?, b"words");
    // The archived one's name is free, and its successor empty.
    let next = rig.published("plain")?;
    ensure!(next.id() != plain.id() && entries(&next.target)?.is_empty(), "it is not empty");
    rig.shares.node_unpublish_volume(next.unpublish())?;
    rig.shares.delete_volume(next.delete())?;
    assert_eq!(entries(&rig.on_server("archive"))?.len(), 2);

    for _ in 0..2 {
        let again = claim(&rig, "pvc-2", ("team", "kept"), BY_CLAIM, "delete");
        refused(again, Code::FailedPrecondition, "cannot be a new volume's")?;
        rig.restart()?;
    }
    assert_eq!(fs::read(rig.on_server("volumes/team/kept/data"))?, b"words");
    // An admin takes it away.
    fs::remove_dir_all(rig.on_server("volumes/team/kept"))?;
    rig.restart()?;
    let again = claim(&rig, "pvc-2", ("team", "kept"), BY_CLAIM, "delete")?;
    rig.shares.delete_volume(again.delete())?;
    Ok(())
}

#[test]
fn a_class_says_whose_a_new_volume_is() -> Result<()> {
    if !can_serve("a_class_says_whose_a_new_volume_is")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    made(&rig.host, &rig.shares, request("a", &[("mode", "2750"), ("uid", "1000"), ("gid", "2000")]))?;
    let folder = fs::metadata(rig.on_server("volumes/a"))?;
    assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o7777), (1000, 2000, 0o2750));
    refused(made(&rig.host, &rig.shares, request("b", &[("colour", "red")])), Code::InvalidArgument, "`colour`")
}
