//! What room there is, and who gets it.

use std::thread;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, GIB, MIB, Need, Setup, block, can_run, create, mount};
use tonic::Code;

use crate::{DUNNAGE, is, rig};

const ALL: &str = "all.csi.dunnage.dev";

fn at(node: &str) -> Option<csi::Topology> {
    Some(csi::Topology { segments: [("dunnage.dev/node".into(), node.into())].into() })
}

#[test]
fn capacity_is_that_of_the_parameters_the_topology_and_the_largest() -> Result<()> {
    if !can_run("capacity_is_that_of_the_parameters_the_topology_and_the_largest", &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("warm", "dir", "quota: none")?.backend("cold", "image", "overcommit: 0.01")?;
    let host = setup.plugin(ALL, &["warm", "cold"]).start(DUNNAGE)?;
    let client = host.client(ALL)?;
    let of = |backend: &str| -> Result<i64> {
        let parameters = [("backend".into(), backend.into())].into();
        Ok(client.get_capacity(csi::GetCapacityRequest { parameters, ..Default::default() })?.available_capacity)
    };
    let (warm, cold) = (of("warm")?, of("cold")?);
    ensure!(warm > 10 * cold && cold > 0, "{warm} and {cold}");
    let largest = client.get_capacity(Default::default())?.available_capacity;
    ensure!(largest.abs_diff(warm) < GIB as u64, "{largest} is not the larger of {warm} and {cold}");
    // Only one of them has raw block.
    let request = csi::GetCapacityRequest { volume_capabilities: vec![block()], ..Default::default() };
    let for_block = client.get_capacity(request)?.available_capacity;
    ensure!(for_block.abs_diff(cold) < GIB as u64, "{for_block} and {cold}");
    let request = csi::GetCapacityRequest { accessible_topology: at("node-7"), ..Default::default() };
    ensure!(client.get_capacity(request)?.available_capacity > 0);
    let request = csi::GetCapacityRequest { accessible_topology: at("node-8"), ..Default::default() };
    assert_eq!(client.get_capacity(request)?.available_capacity, 0);
    let parameters = [("backend".into(), "hot".into())].into();
    let answer = client.get_capacity(csi::GetCapacityRequest { parameters, ..Default::default() });
    let message = is("unknown", answer, Code::InvalidArgument)?;
    ensure!(message.contains("warm") && message.contains("cold"), "{message}");
    Ok(())
}

#[test]
fn a_shared_plugin_dispatches_by_the_parameter_and_then_by_id() -> Result<()> {
    if !can_run("a_shared_plugin_dispatches_by_the_parameter_and_then_by_id", &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("warm", "dir", "quota: none")?.backend("cold", "image", "")?;
    let host = setup.plugin(ALL, &["warm", "cold"]).start(DUNNAGE)?;
    let client = host.client(ALL)?;
    let message = is("no backend", client.create_volume(create("a", MIB, mount())), Code::InvalidArgument)?;
    ensure!(message.contains("warm") && message.contains("cold"), "{message}");
    for backend in ["warm", "cold"] {
        let mut request = create("a", 16 * MIB, mount());
        request.parameters = [("backend".into(), backend.into())].into();
        let made = client.create_volume(request.clone())?.volume.expect("no volume");
        assert_eq!(client.create_volume(request)?.volume.as_ref(), Some(&made));
        let pods = host.setup().scratch().path().join(backend);
        // Behind a shared name every volume is staged; for a directory there is nothing to do then.
        let volume = dunnage_test_common::Volume::new(made, mount(), &pods, true);
        crate::bring(&client, &volume)?;
        std::fs::write(volume.target.join("data"), backend)?;
        let files = walk(&host.setup().root(backend));
        ensure!(files > 0, "the volume is not in {backend}");
        crate::take(&client, &volume)?;
        client.delete_volume(volume.delete())?;
    }
    ensure!(!host.setup().socket("warm.csi.dunnage.dev").exists(), "a shared backend has a socket of its own");
    Ok(())
}

fn walk(root: &std::path::Path) -> usize {
    ["volumes", "images"].iter().filter_map(|name| std::fs::read_dir(root.join(name)).ok()).map(Iterator::count).sum()
}

#[test]
fn concurrent_creates_never_promise_more_than_there_is() -> Result<()> {
    let Some(rig) = rig("concurrent_creates_never_promise_more_than_there_is")? else { return Ok(()) };
    let room = rig.disks.get_capacity(Default::default())?.available_capacity;
    let size = room / 5 / MIB * MIB;
    let disks = rig.disks.under("image", Fault::AtOnce);
    let answers: Vec<_> = thread::scope(|scope| {
        let creates: Vec<_> = (0..8)
            .map(|number| {
                let client = disks.clone();
                scope.spawn(move || client.create_volume(create(&format!("v{number}"), size, block())))
            })
            .collect();
        creates.into_iter().map(|create| create.join().expect("the thread panicked")).collect()
    });
    let made = answers.iter().filter(|answer| answer.is_ok()).count();
    ensure!((4..=5).contains(&made), "{made} of 8 volumes of a fifth each were made");
    for answer in answers {
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        }
    }
    let left = rig.disks.get_capacity(Default::default())?.available_capacity;
    ensure!(left < room - size * (made as i64) + GIB, "{left} left of {room}");
    let id = rig.disks.list_volumes(Default::default())?.entries[0].volume.clone().unwrap().volume_id;
    let message = is(
        "an expansion that cannot fit",
        rig.disks.under("image", Fault::NoRoom).controller_expand_volume(dunnage_test_common::expand(&id, room)),
        Code::OutOfRange,
    )?;
    ensure!(message.contains("room"), "{message}");
    Ok(())
}
