//! A store on a disk that takes no write for a while.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_test_common::{
    Client, Fault, Frozen, Host, MIB, Need, Setup, can_run, create, mount, mount_disk, wait_until,
};
use tonic::Code;

use crate::{DUNNAGE, live, name, volume};

const SHORT: Duration = Duration::from_millis(500);
/// Far more than the short deadline; only a hang comes near.
const LIMIT: Duration = Duration::from_secs(30);

/// A host with a backend on a disk of its own, and one elsewhere.
fn rig(test: &str) -> Result<Option<(Host, Client, Client)>> {
    if !can_run(test, &[Need::Root, Need::Program("fsfreeze")])? {
        return Ok(None);
    }
    let setup = Setup::new()?.backend("slow", "dir", "quota: none")?.backend("files", "dir", "quota: none")?;
    let mut host = setup.prepare(DUNNAGE)?;
    mount_disk(&host.setup().scratch().path().join("disk"), 64, &host.setup().root("slow"))?;
    host.init()?;
    host.restart()?;
    let (slow, files) = (host.client(&name("slow"))?, host.client(&name("files"))?);
    Ok(Some((host, slow, files)))
}

fn names(client: &Client) -> Result<BTreeSet<String>> {
    let entries = client.list_volumes(Default::default())?.entries.into_iter();
    let key = |id: String| id.split('.').nth(1).unwrap_or_default().to_owned();
    Ok(entries.map(|entry| key(entry.volume.expect("no volume").volume_id)).collect())
}

#[test]
fn a_call_on_a_hanging_store_is_answered_by_its_deadline_and_its_retry_gets_the_answer() -> Result<()> {
    let Some((host, slow, files)) =
        rig("a_call_on_a_hanging_store_is_answered_by_its_deadline_and_its_retry_gets_the_answer")?
    else {
        return Ok(());
    };
    let there = volume(&host, &slow, "there")?;
    let frozen = Frozen::new(&host.setup().root("slow"))?;
    let slow = slow.under("dir", Fault::Frozen);
    let began = Instant::now();
    for _ in 0..3 {
        let status = loop {
            let status = slow.with_deadline(SHORT).create_volume(create("a", MIB, mount())).expect_err("it hangs");
            // On a machine that is very busy the client's own clock may be first.
            if status.code() != Code::Cancelled || began.elapsed() > LIMIT {
                break status;
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        ensure!(status.message().contains("it goes on"), "{status:?}");
    }
    let other = slow.create_volume(create("a", 2 * MIB, mount())).expect_err("another request of that name");
    assert_eq!(other.code(), Code::Aborted, "{other:?}");
    ensure!(other.message().contains("CreateVolume"), "{other:?}");
    ensure!(began.elapsed() < LIMIT, "answered after {:?}", began.elapsed());
    // The others do not feel it, nor do reads of the same store.
    live(&host, &files, "other")?;
    assert_eq!(names(&slow)?, [&there.id()].map(|id| id.split('.').nth(1).unwrap().to_owned()).into());
    slow.get_capacity(Default::default())?;
    drop(frozen);
    let first = slow.create_volume(create("a", MIB, mount()))?;
    assert_eq!(first, slow.create_volume(create("a", MIB, mount()))?);
    ensure!(names(&slow)?.len() == 2, "{:?}", names(&slow)?);
    Ok(())
}

#[test]
fn work_survives_a_client_that_hangs_up() -> Result<()> {
    let Some((host, slow, _)) = rig("work_survives_a_client_that_hangs_up")? else { return Ok(()) };
    let frozen = Frozen::new(&host.setup().root("slow"))?;
    slow.run(|channel| async {
        let mut client = ControllerClient::new(channel);
        let call = client.create_volume(create("a", MIB, mount()));
        // Dropped in mid-call, which the server is told.
        tokio::time::timeout(SHORT, call).await.expect_err("it was answered");
    });
    let slow = slow.under("dir", Fault::ClientGone);
    // Whoever repeats it joins, and whoever asks otherwise is told that it runs.
    let status = slow.create_volume(create("a", 2 * MIB, mount())).expect_err("the work is gone");
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    drop(frozen);
    wait_until("the volume that nobody waits for", LIMIT, || Ok(names(&slow)?.len() == 1))?;
    host.wait_for_log("after its callers had left")?;
    slow.create_volume(create("a", MIB, mount()))?;
    ensure!(names(&slow)?.len() == 1, "made twice");
    Ok(())
}

#[test]
fn two_clients_at_once_get_one_volume_and_one_answer() -> Result<()> {
    let Some((host, slow, _)) = rig("two_clients_at_once_get_one_volume_and_one_answer")? else { return Ok(()) };
    let frozen = Frozen::new(&host.setup().root("slow"))?;
    let slow = slow.under("dir", Fault::AtOnce);
    let answers = thread::scope(|scope| -> Result<Vec<_>> {
        let calls: Vec<_> = (0..8)
            .map(|number| {
                // Half of them over a connection of their own.
                let own = if number % 2 == 0 { Ok(slow.clone()) } else { host.client(&name("slow")) };
                own.map(|client| scope.spawn(move || client.create_volume(create("a", MIB, mount()))))
            })
            .collect::<Result<_>>()?;
        let busy = || slow.create_volume(create("a", 2 * MIB, mount())).is_err_and(|one| one.code() == Code::Aborted);
        wait_until("one of them to run", LIMIT, || Ok(busy()))?;
        drop(frozen);
        Ok(calls.into_iter().map(|call| call.join().expect("the thread panicked")).collect())
    })?;
    let first = answers[0].as_ref().expect("no volume");
    for answer in &answers {
        assert_eq!(answer.as_ref().expect("no volume"), first);
    }
    let status = slow.create_volume(create("a", 2 * MIB, mount())).expect_err("another volume of that name");
    assert_eq!(status.code(), Code::AlreadyExists);
    Ok(())
}

#[test]
fn a_hanging_volume_holds_no_other_of_its_backend() -> Result<()> {
    let Some((host, slow, _)) = rig("a_hanging_volume_holds_no_other_of_its_backend")? else { return Ok(()) };
    let (used, idle) = (volume(&host, &slow, "used")?, volume(&host, &slow, "idle")?);
    let frozen = Frozen::new(&host.setup().root("slow"))?;
    let slow = slow.under("dir", Fault::Frozen);
    for _ in 0..20 {
        let answer = slow.with_deadline(Duration::from_millis(100)).delete_volume(idle.delete());
        // On a busy machine the client is the first to give up.
        ensure!(matches!(answer.expect_err("it hangs").code(), Code::DeadlineExceeded | Code::Cancelled));
    }
    // Publishing writes nothing to the store.
    slow.node_publish_volume(used.publish())?;
    slow.node_get_volume_stats(used.stats())?;
    slow.node_unpublish_volume(used.unpublish())?;
    drop(frozen);
    slow.delete_volume(idle.delete())?;
    ensure!(names(&slow)?.len() == 1, "{:?}", names(&slow)?);
    Ok(())
}
