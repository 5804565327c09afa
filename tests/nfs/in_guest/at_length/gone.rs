//! The server is gone for good: what is here is taken away all the same.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, wait_until};

use super::{LIMIT, Rig, SHARES, Writer, can_serve, is_mounted, within};

/// Ten times what a call waits for a server at the most.
const BOUND: Duration = Duration::from_secs(200);

#[test]
fn volumes_of_a_server_that_is_gone_are_taken_away_in_use_or_not() -> Result<()> {
    if !can_serve("volumes_of_a_server_that_is_gone_are_taken_away_in_use_or_not")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let (idle, used, dirty, late) =
        (rig.published("idle")?, rig.published("used")?, rig.published("dirty")?, rig.published("late")?);
    let mut writer = Writer::new(&dirty)?;
    rig.machine.cut()?;
    // A program that hangs in the volume, and one that has written what is on no server.
    let mut hanging = Command::new("ls").arg(&used.target).stdout(Stdio::null()).spawn()?;
    writer.write(b"words")?;
    writer.end()?;
    let shares = rig.under(Fault::ServerGoneForGood);
    let asked = shares.node_get_volume_stats(idle.stats());
    ensure!(asked.is_err(), "{asked:?}");
    for (volume, what) in [(&idle, "idle"), (&used, "used"), (&dirty, "dirty")] {
        within(BOUND, &format!("unpublish of what is {what}"), || shares.node_unpublish_volume(volume.unpublish()))?;
        ensure!(!volume.target.exists(), "{what} is left");
        within(BOUND, "again", || shares.node_unpublish_volume(volume.unpublish()))?;
    }
    // Also by a host that never saw the server.
    rig.host.kill()?;
    rig.host.spawn()?;
    rig.host.wait_for(SHARES)?;
    rig.shares = rig.host.client(SHARES)?;
    let shares = rig.under(Fault::ServerGoneForGood);
    within(BOUND, "unpublish by a new host", || shares.node_unpublish_volume(late.unpublish()))?;
    ensure!(!late.target.exists(), "it is left");
    hanging.kill()?;
    hanging.wait()?;
    rig.machine.mend()?;
    wait_until("the writer to end", LIMIT, || writer.has_ended())?;
    rig.restart()?;
    assert_eq!(
        std::fs::read(rig.on_server("volumes/dirty/data"))?,
        b"words",
        "what was written before the end is lost"
    );
    Ok(())
}

#[test]
fn a_publish_that_finds_no_server_is_answered_and_leaves_nothing() -> Result<()> {
    if !can_serve("a_publish_that_finds_no_server_is_answered_and_leaves_nothing")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volume = rig.create("a")?;
    for cut in [true, false] {
        if cut {
            rig.machine.cut()?
        } else {
            rig.server.stop()?
        }
        let shares = rig.under(Fault::NoServer);
        let answer = within(BOUND, "publish", || shares.node_publish_volume(volume.publish()));
        ensure!(answer.is_err(), "{answer:?}");
        ensure!(!is_mounted(&volume.target), "it is mounted");
        within(BOUND, "unpublish", || shares.node_unpublish_volume(volume.unpublish()))?;
        ensure!(!volume.target.exists(), "it is left");
        if cut {
            rig.machine.mend()?
        } else {
            rig.server.start()?
        }
        wait_until("the server to be found again", LIMIT, || Ok(shares.node_publish_volume(volume.publish()).is_ok()))?;
        rig.shares.node_unpublish_volume(volume.unpublish())?;
    }
    Ok(())
}

#[test]
fn a_server_that_goes_in_the_middle_of_publishes_leaves_none_half_done() -> Result<()> {
    if !can_serve("a_server_that_goes_in_the_middle_of_publishes_leaves_none_half_done")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volumes = (0..4).map(|number| rig.create(&format!("v{number}"))).collect::<Result<Vec<_>, _>>()?;
    let shares = &rig.under(Fault::ServerGoesWithin);
    for pause in [0, 30, 60, 90, 150] {
        thread::scope(|scope| -> Result<()> {
            let publishing: Vec<_> = volumes
                .iter()
                .map(|volume| {
                    scope.spawn(move || {
                        within(BOUND, "publish", || shares.node_publish_volume(volume.publish())).is_ok()
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(pause));
            rig.machine.cut()?;
            for (publishing, volume) in publishing.into_iter().zip(&volumes) {
                let done = publishing.join().expect("it does not panic");
                ensure!(done == is_mounted(&volume.target), "done: {done}, and that is not so");
            }
            for volume in &volumes {
                within(BOUND, "unpublish", || shares.node_unpublish_volume(volume.unpublish()))?;
                ensure!(!volume.target.exists(), "it is left");
            }
            Ok(())
        })?;
        rig.machine.mend()?;
        wait_until("the server to be found again", LIMIT, || {
            Ok(rig.shares.node_publish_volume(volumes[0].publish()).is_ok())
        })?;
        std::fs::File::create(volumes[0].target.join("data"))?.write_all(b"words")?;
        rig.shares.node_unpublish_volume(volumes[0].unpublish())?;
    }
    Ok(())
}
