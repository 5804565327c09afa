//! What the controller half tells of its volumes' health.

use std::fs::{self, File};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::VolumeHealthErrorType as Kind;
use dunnage_test_common::{Client, Host, MIB, Need, Setup, block, can_run, create, mount, mount_disk, mount_new};
use tonic::Code;

use crate::{DUNNAGE, is};

fn make(client: &Client, name: &str, capability: csi::VolumeCapability) -> Result<String> {
    Ok(client.create_volume(create(name, 16 * MIB, capability))?.volume.context("no volume")?.volume_id)
}

fn health(client: &Client, volume_id: &str) -> Result<Vec<(Kind, String, String)>, tonic::Status> {
    let request = csi::ControllerGetVolumeHealthRequest { volume_id: volume_id.into(), ..Default::default() };
    let found = client.controller_get_volume_health(request)?.volume_health.unwrap_or_default();
    let entries = found.health_statuses.into_iter();
    Ok(entries.map(|entry| (entry.status(), entry.reason, entry.message)).collect())
}

fn start(test: &str, driver: &str, mkfs: &'static str) -> Result<Option<(Host, Client)>> {
    if !can_run(test, &[Need::Root, Need::Program(mkfs)])? {
        return Ok(None);
    }
    let fields = if driver == "dir" { "quota: none" } else { "" };
    let setup = Setup::new()?.backend("a", driver, fields)?;
    mount_new(&setup.scratch().path().join("disk"), 320, &setup.root("a"), &[mkfs, "-q"], "loop")?;
    let host = setup.start(DUNNAGE)?;
    let client = host.client("a.csi.dunnage.dev")?;
    Ok(Some((host, client)))
}

#[test]
fn a_volume_that_lost_its_data_is_told_and_the_others_are_left_out_of_the_list() -> Result<()> {
    let test = "a_volume_that_lost_its_data_is_told_and_the_others_are_left_out_of_the_list";
    for (driver, mkfs, data, reason) in [
        ("dir", "mkfs.ext4", "volumes", "FolderMissing"),
        ("image", "mkfs.ext4", "images", "ImageMissing"),
        ("btrfs", "mkfs.btrfs", "volumes", "SubvolumeMissing"),
    ] {
        let Some((host, client)) = start(test, driver, mkfs)? else { return Ok(()) };
        let ids = (0..5).map(|index| make(&client, &format!("v{index}"), mount())).collect::<Result<Vec<_>>>()?;
        assert_eq!(health(&client, &ids[1])?, []);
        let folder = host.setup().root("a").join(data);
        for lost in ["v1", "v3"] {
            fs::rename(folder.join(lost), host.setup().root("a").join(lost))?;
        }
        let found = health(&client, &ids[1])?;
        ensure!(matches!(&found[..], [(Kind::DataLoss, one, _)] if one == reason), "{driver}: {found:?}");
        assert_eq!(health(&client, &ids[2])?, []);
        let list = |max_entries, starting_token: &str| {
            let starting_token = starting_token.into();
            let request = csi::ControllerListVolumeHealthRequest { max_entries, starting_token, ..Default::default() };
            client.controller_list_volume_health(request)
        };
        let first = list(1, "")?;
        let second = list(1, &first.next_token)?;
        let listed: Vec<_> = first.entries.iter().chain(&second.entries).map(|entry| &entry.volume_id).collect();
        assert_eq!(listed, [&ids[1], &ids[3]]);
        ensure!(second.next_token.is_empty(), "more than there is");
        assert_eq!(list(0, "")?.entries.len(), 2);
        is("a token that nobody gave", list(0, "nonsense"), Code::Aborted)?;
        is("no such volume", health(&client, "nobody's"), Code::NotFound)?;
        is("no volume", health(&client, ""), Code::InvalidArgument)?;
        fs::rename(host.setup().root("a").join("v1"), folder.join("v1"))?;
        assert_eq!(health(&client, &ids[1])?, [], "{driver}: it is back");
    }
    Ok(())
}

#[test]
fn an_image_that_was_cut_and_a_disk_that_is_nearly_full_are_told() -> Result<()> {
    let test = "an_image_that_was_cut_and_a_disk_that_is_nearly_full_are_told";
    if !can_run(test, &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("a", "image", "")?;
    mount_disk(&setup.scratch().path().join("disk"), 64, &setup.root("a"))?;
    let host = setup.start(DUNNAGE)?;
    let client = host.client("a.csi.dunnage.dev")?;
    let (cut, thin) = (make(&client, "cut", block())?, make(&client, "thin", block())?);
    let root = host.setup().root("a");
    File::options().write(true).open(root.join("images/cut"))?.set_len(4096)?;
    let found = health(&client, &cut)?;
    ensure!(matches!(&found[..], [(Kind::DataLoss, reason, _)] if reason == "ImageCutShort"), "{found:?}");
    assert_eq!(health(&client, &thin)?, []);
    let room = rustix::fs::statvfs(&root)?;
    fs::write(root.join("others"), vec![7; (room.f_bavail * room.f_frsize) as usize - MIB as usize])?;
    // While it is written out its removal waits, and with it the room.
    File::open(root.join("others"))?.sync_all()?;
    let found = health(&client, &thin)?;
    let [(Kind::Degraded, reason, message)] = &found[..] else { anyhow::bail!("{found:?}") };
    ensure!(reason == "StoreNearlyFull" && message.contains("grow it"), "{found:?}");
    fs::remove_file(root.join("others"))?;
    assert_eq!(health(&client, &thin)?, []);
    Ok(())
}
