//! The cable to the server is cut, for seconds.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunnage_test_common::{Client, Fault, Host, MIB, Volume, create, mount, wait_until};

use super::{LIMIT, Rig, Writer, can_serve, made, told, within};

/// Ten times what statistics have.
const SOON: Duration = Duration::from_secs(20);

/// Whole lives on the machine's own disk, and how long each call of them took.
fn lives(host: &Host, files: &Client, name: &str, times: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    let mut time = |began: Instant| took.push(began.elapsed());
    for _ in 0..times {
        let began = Instant::now();
        let volume = made(host, files, create(name, MIB, mount()))?;
        time(began);
        let began = Instant::now();
        files.node_publish_volume(volume.publish())?;
        time(began);
        let began = Instant::now();
        files.node_get_volume_stats(volume.stats())?;
        time(began);
        let began = Instant::now();
        files.node_unpublish_volume(volume.unpublish())?;
        time(began);
        let began = Instant::now();
        files.delete_volume(volume.delete())?;
        time(began);
    }
    took.sort();
    Ok(took)
}

fn quantiles(what: &str, took: &[Duration]) {
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    told(&format!("{what}: p50 {half:?}, p99 {most:?}, worst {:?}", took.last()));
}

#[test]
fn statistics_are_answered_and_other_backends_served_while_the_server_is_gone() -> Result<()> {
    if !can_serve("statistics_are_answered_and_other_backends_served_while_the_server_is_gone")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volumes: Vec<Volume> = (0..20).map(|number| rig.published(&format!("v{number}"))).collect::<Result<_>>()?;
    lives(&rig.host, &rig.files, "warm", 20)?;
    quantiles("other backend, server alive", &lives(&rig.host, &rig.files, "alive", 60)?);
    rig.machine.cut()?;
    let shares = rig.under(Fault::ServerGoneForSeconds);
    // Every volume is asked for again and again: more questions than the backend may have threads.
    let mut longest = Duration::ZERO;
    for volume in volumes.iter().cycle().take(100) {
        let began = Instant::now();
        let answer = within(SOON, "stats", || shares.node_get_volume_stats(volume.stats()));
        longest = longest.max(began.elapsed());
        ensure!(answer.is_err(), "{answer:?}");
    }
    told(&format!("longest wait for statistics: {longest:?}"));
    thread::scope(|scope| -> Result<()> {
        let asking = scope.spawn(|| {
            for volume in volumes.iter().cycle().take(40) {
                let _ = rig.shares.node_get_volume_stats(volume.stats());
            }
        });
        quantiles("other backend, server gone", &lives(&rig.host, &rig.files, "gone", 60)?);
        asking.join().expect("it does not panic");
        Ok(())
    })?;
    rig.machine.mend()?;
    wait_until("statistics of a server that is back", LIMIT, || {
        Ok(shares.node_get_volume_stats(volumes[0].stats()).is_ok())
    })?;
    for volume in &volumes {
        shares.node_unpublish_volume(volume.unpublish())?;
        shares.delete_volume(volume.delete())?;
    }
    Ok(())
}

#[test]
fn what_is_written_while_the_server_is_gone_for_seconds_is_all_there_afterwards() -> Result<()> {
    if !can_serve("what_is_written_while_the_server_is_gone_for_seconds_is_all_there_afterwards")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let volume = rig.published("a")?;
    let mut writer = Writer::new(&volume)?;
    writer.write(&[1; 100_000])?;
    wait_until("the first to be written", LIMIT, || {
        Ok(fs::metadata(volume.target.join("data")).is_ok_and(|data| data.len() == 100_000))
    })?;
    rig.machine.cut()?;
    writer.write(&[2; 100_000])?;
    writer.end()?;
    thread::sleep(Duration::from_secs(8));
    ensure!(!writer.has_ended()?, "a hard mount has given up");
    rig.machine.mend()?;
    wait_until("the rest to be written", LIMIT, || writer.has_ended())?;
    // The host may be killed at any time: what is mounted is the kernel's.
    rig.restart()?;
    let bytes = fs::read(rig.on_server("volumes/a/data"))?;
    ensure!(bytes == [[1; 100_000], [2; 100_000]].concat(), "{} bytes", bytes.len());
    rig.under(Fault::CutInWrite).node_unpublish_volume(volume.unpublish())?;
    Ok(())
}
