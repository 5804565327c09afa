//! Several machines on one export.

use std::fs;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Client, Fault, Host, MIB, NfsClient, create, wait_until};
use tonic::Code;

use super::{LIMIT, Rig, SHARES, WRITERS, can_serve, made, on, program, refused, setup, with_mode};

/// A host on a second machine with the same backend, which does not wait for its socket.
fn second(rig: &mut Rig, keys: &str) -> Result<(NfsClient, Host)> {
    let machine = rig.server.client(rig.host.setup().scratch().path())?;
    let setup = setup(&machine, keys)?.set("node", "node-8");
    let mut host = setup.prepare(program(&machine)?.to_str().context("a path")?)?;
    host.spawn()?;
    Ok((machine, host))
}

fn client(host: &mut Host) -> Result<Client> {
    host.wait_for(SHARES)?;
    host.client(SHARES)
}

#[test]
fn two_nodes_use_one_volume_at_once_and_one_of_them_makes_it() -> Result<()> {
    if !can_serve("two_nodes_use_one_volume_at_once_and_one_of_them_makes_it")? {
        return Ok(());
    }
    let mut rig = Rig::new("nodes: [node-7]")?;
    let (_machine, mut other) = second(&mut rig, "nodes: [node-7]")?;
    let there = client(&mut other)?;
    let volume = made(&rig.host, &rig.shares, create("a", MIB, with_mode(WRITERS)))?;
    let mut here = volume.clone();
    here.capability = with_mode(WRITERS);
    let away = on(&other, &here);
    rig.shares.node_publish_volume(here.publish())?;
    there.node_publish_volume(away.publish())?;
    fs::write(here.target.join("from-here"), "here")?;
    assert_eq!(fs::read(away.target.join("from-here"))?, b"here");
    fs::write(away.target.join("from-there"), "there")?;
    assert_eq!(fs::read(here.target.join("from-there"))?, b"there");

    refused(
        there.under("nfs", Fault::TwoAtOnce).create_volume(create("b", MIB, with_mode(WRITERS))),
        Code::Unimplemented,
        "not offered",
    )?;
    ensure!(!there.node_get_volume_stats(away.stats())?.usage.is_empty(), "no usage");
    rig.shares.node_unpublish_volume(here.unpublish())?;
    there.node_unpublish_volume(away.unpublish())?;
    rig.shares.delete_volume(volume.delete())?;
    let unknown = there.under("nfs", Fault::UnknownId);
    refused(unknown.node_publish_volume(away.publish()), Code::NotFound, "there is no volume")?;
    // A successor of the same name is another volume there too.
    let next = made(&rig.host, &rig.shares, create("a", MIB, with_mode(WRITERS)))?;
    let reused = there.under("nfs", Fault::HandleReused);
    refused(reused.node_publish_volume(away.publish()), Code::NotFound, "there is no volume")?;
    let mut next = on(&other, &next);
    next.capability = with_mode(WRITERS);
    there.node_publish_volume(next.publish())?;
    there.node_unpublish_volume(next.unpublish())?;
    Ok(())
}

#[test]
fn one_process_makes_volumes_and_another_takes_over_when_it_is_gone() -> Result<()> {
    if !can_serve("one_process_makes_volumes_and_another_takes_over_when_it_is_gone")? {
        return Ok(());
    }
    let mut rig = Rig::new("nodes: [node-7, node-8]")?;
    let before = rig.create("before")?;
    let (_machine, mut other) = second(&mut rig, "nodes: [node-7, node-8]")?;
    other.wait_for_log("is served already (by node node-7")?;
    // Cut off for longer than the lease of its lock: the server gives it to the other one.
    rig.machine.cut()?;
    let there = client(&mut other)?.under("nfs", Fault::TwoAtOnce);
    let there_before = there.controller_get_volume(get(&before.id()))?.volume.context("no volume")?;
    assert_eq!(there_before, before.made);
    let after = made(&other, &there, create("after", MIB, super::mount()))?;
    rig.machine.mend()?;
    // The first one finds that it was replaced, and changes nothing.
    let replaced = rig.under(Fault::TwoAtOnce);
    let mine = || replaced.create_volume(create("mine", MIB, super::mount()));
    wait_until("the first one to find that it was replaced", LIMIT, || match mine() {
        Err(status) if status.message().contains("by node node-8") => Ok(true),
        Err(_) => Ok(false),
        Ok(_) => anyhow::bail!("two make volumes"),
    })?;
    ensure!(!rig.on_server("volumes/mine").exists(), "it has made something");
    // When the other ends it goes on, and knows what was done meanwhile.
    other.terminate()?;
    wait_until("the first one to go on", LIMIT, || Ok(rig.create("mine").is_ok()))?;
    let listed = rig.shares.list_volumes(Default::default())?.entries;
    let mut names: Vec<_> = listed.into_iter().filter_map(|entry| entry.volume).map(|one| one.volume_id).collect();
    names.sort();
    let mut wanted = vec![before.id(), after.id(), rig.create("mine")?.id()];
    wanted.sort();
    assert_eq!(names, wanted);
    Ok(())
}

fn get(volume_id: &str) -> dunnage_csi_proto::csi::v1::ControllerGetVolumeRequest {
    dunnage_csi_proto::csi::v1::ControllerGetVolumeRequest { volume_id: volume_id.into() }
}
