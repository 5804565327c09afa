//! Volumes that share a btrfs and have sizes of their own.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type};
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Setup, Volume, can_run, create, expand, mount, mount_new, wait_until,
};
use tonic::Code;

use crate::{DUNNAGE, bring, is, take};

const NAME: &str = "copies.csi.dunnage.dev";

/// A host with two stores, and a client of the first.
fn start(test: &str, more: &[Need]) -> Result<Option<(Host, Client)>> {
    if !can_run(test, &[&[Need::Root, Need::Program("mkfs.btrfs")], more].concat())? {
        return Ok(None);
    }
    let mut setup = Setup::new()?;
    for name in ["copies", "others"] {
        setup = setup.backend(name, "btrfs", "")?;
        mount_new(&setup.scratch().path().join(name), 512, &setup.root(name), &["mkfs.btrfs", "-q"], "loop")?;
    }
    let host = setup.start(DUNNAGE)?;
    let client = host.client(NAME)?;
    Ok(Some((host, client)))
}

fn volume(host: &Host, client: &Client, request: csi::CreateVolumeRequest) -> Result<Volume> {
    let folder = host.setup().scratch().path().join("pods").join(&request.name);
    Ok(Volume::new(client.create_volume(request)?.volume.context("no volume")?, mount(), &folder, false))
}

fn bytes(client: &Client, volume: &Volume) -> Result<csi::VolumeUsage> {
    client.node_get_volume_stats(volume.stats())?.usage.pop().context("no usage")
}

#[test]
fn a_volume_on_a_shared_btrfs_has_statistics_of_its_own_and_grows_while_it_is_used() -> Result<()> {
    let test = "a_volume_on_a_shared_btrfs_has_statistics_of_its_own_and_grows_while_it_is_used";
    start(test, &[])?.map_or(Ok(()), |(host, client)| has_a_size(&host, &client))
}

fn has_a_size(host: &Host, client: &Client) -> Result<()> {
    let one = volume(host, client, create("one", 64 * MIB, mount()))?;
    let other = volume(host, client, create("other", 64 * MIB, mount()))?;
    for volume in [&one, &other] {
        bring(client, volume)?;
    }
    fs::write(one.target.join("data"), vec![7; 20 << 20])?;
    ensure!(fs::write(other.target.join("data"), vec![7; 80 << 20]).is_err(), "it takes more than its size");
    let top = File::open(host.setup().root("copies"))?;
    wait_until("what was written to be counted", Duration::from_secs(60), || {
        rustix::fs::syncfs(&top)?;
        Ok(bytes(client, &one)?.used >= 20 * MIB)
    })?;
    let usage = bytes(client, &one)?;
    ensure!(usage.total == 64 * MIB && usage.used < 24 * MIB, "{usage:?}");
    ensure!(usage.available <= 44 * MIB && usage.available > 38 * MIB, "{usage:?}");
    ensure!(
        !client.controller_expand_volume(expand(&one.id(), 128 * MIB))?.node_expansion_required,
        "nothing is to do"
    );
    assert_eq!(bytes(client, &one)?.total, 128 * MIB);
    fs::write(one.target.join("more"), vec![7; 80 << 20])?;
    for volume in [&one, &other] {
        take(client, volume)?;
        client.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn a_snapshot_is_restored_in_its_own_store_alone() -> Result<()> {
    let started = start("a_snapshot_is_restored_in_its_own_store_alone", &[])?;
    started.map_or(Ok(()), |(host, client)| is_copied(&host, &client))
}

fn is_copied(host: &Host, client: &Client) -> Result<()> {
    let source = volume(host, client, create("source", 16 * MIB, mount()))?;
    let taken = csi::CreateSnapshotRequest { source_volume_id: source.id(), name: "s".into(), ..Default::default() };
    let snapshot = client.create_snapshot(taken)?.snapshot.context("no snapshot")?;
    let restore = |name: &str, bytes| {
        let mut request = create(name, bytes, mount());
        let content = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() });
        request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(content) });
        request
    };
    let elsewhere = host.client("others.csi.dunnage.dev")?.create_volume(restore("elsewhere", 16 * MIB));
    let said = is("a restore into another store", elsewhere, Code::ResourceExhausted)?;
    ensure!(said.contains("nothing is copied from one store into another"), "{said}");
    let mut small = restore("small", 0);
    small.capacity_range = Some(csi::CapacityRange { required_bytes: 0, limit_bytes: 8 * MIB });
    let wrong = client.under("btrfs", Fault::BadRequest);
    is("a restore that is smaller", wrong.create_volume(small), Code::OutOfRange)?;
    // The volume goes first.
    client.delete_volume(source.delete())?;
    let restored = volume(host, client, restore("restored", 32 * MIB))?;
    assert_eq!(restored.made.capacity_bytes, 32 * MIB);
    let gone = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    client.delete_snapshot(gone)?;
    client.delete_volume(restored.delete())?;
    Ok(())
}

/// The kernel there has no simple quotas, and leaves the groups of subvolumes behind that are gone.
mod in_guest {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stock_kernel_has_sizes_and_copies_and_keeps_no_group_of_what_is_gone() -> Result<()> {
        let test = "a_stock_kernel_has_sizes_and_copies_and_keeps_no_group_of_what_is_gone";
        let Some((mut host, client)) = start(test, &[Need::Guest])? else { return Ok(()) };
        has_a_size(&host, &client)?;
        is_copied(&host, &client)?;
        let root = host.setup().root("copies");
        wait_until("the groups to go", Duration::from_secs(300), || {
            ensure!(Command::new("btrfs").args(["subvolume", "sync"]).arg(&root).status()?.success(), "cannot sync");
            host.terminate()?;
            host.restart()?;
            let shown = Command::new("btrfs").args(["qgroup", "show", "--raw"]).arg(&root).output()?;
            ensure!(shown.status.success(), "{shown:?}");
            let shown = String::from_utf8(shown.stdout)?;
            Ok(shown.lines().filter(|line| line.starts_with("0/")).all(|line| line.starts_with("0/5 ")))
        })
    }
}
