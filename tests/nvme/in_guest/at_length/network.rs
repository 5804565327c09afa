//! The network is cut. All of it goes over the loopback, so that each of these needs it for itself.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, Need, can_run, mount, run, wait_until};

use crate::in_guest::{LIMIT, Rig, wait_until_written};

/// The loopback, cut until this is dropped.
struct Cut;

impl Cut {
    fn new() -> Result<Self> {
        run("tc", &["qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%"])?;
        Ok(Self)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = run("tc", &["qdisc", "del", "dev", "lo", "root"]);
    }
}

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("tc"), Need::Program("mkfs.ext4")])
}

/// What the kernel says of the connections of a volume.
fn states(rig: &Rig, volume_id: &str) -> Result<Vec<String>> {
    let names = rig.target.connections(volume_id)?;
    let state = |name: &String| fs::read_to_string(format!("/sys/class/nvme/{name}/state")).unwrap_or_default();
    Ok(names.iter().map(|name| state(name).trim().to_owned()).collect())
}

#[test]
fn a_write_waits_for_a_network_that_was_cut_and_goes_on_when_it_is_healed() -> Result<()> {
    if !can("a_write_waits_for_a_network_that_was_cut_and_goes_on_when_it_is_healed")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    let volume = rig.create("a", 32 * MIB, mount())?;
    rig.bring(&volume, &rig.one)?;
    wait_until_written(&volume.target.join("data"), "before")?;
    let cut = Cut::new()?;
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| wait_until_written(&volume.target.join("meanwhile"), "words"));
        let noticed = || Ok(states(&rig, &volume.id())?.iter().all(|state| state == "connecting"));
        wait_until("the cut to be noticed", LIMIT, noticed)?;
        ensure!(!writer.is_finished(), "a write has ended without its store");
        // Whoever asks meanwhile is answered.
        rig.one.client.with_deadline(Duration::from_secs(20)).node_get_volume_stats(volume.stats())?;
        drop(cut);
        writer.join().expect("it does not panic")
    })?;
    assert_eq!(fs::read(volume.target.join("data"))?, b"before");
    rig.take(&volume, &rig.one)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}

#[test]
fn a_node_that_is_cut_off_for_long_loses_its_writes_and_another_one_goes_on() -> Result<()> {
    if !can("a_node_that_is_cut_off_for_long_loses_its_writes_and_another_one_goes_on")? {
        return Ok(());
    }
    let rig = Rig::image_with("loss_seconds: 10\nkeep_alive_seconds: 2")?;
    let volume = rig.create("a", 32 * MIB, mount())?;
    rig.bring(&volume, &rig.one)?;
    wait_until_written(&volume.target.join("data"), "before")?;
    let cut = Cut::new()?;
    let late = fs::File::create(volume.target.join("late")).and_then(|mut file| {
        std::io::Write::write_all(&mut file, b"words")?;
        file.sync_all()
    });
    ensure!(late.is_err(), "it was written without its store");
    wait_until("the connection to be given up", LIMIT, || Ok(states(&rig, &volume.id())?.is_empty()))?;
    rig.one.take(&volume)?;
    rig.detach(&volume, &rig.one)?;
    drop(cut);
    rig.bring(&volume, &rig.two)?;
    assert_eq!(fs::read(volume.target.join("data"))?, b"before");
    ensure!(!volume.target.join("late").exists(), "what was lost has come back");
    rig.take(&volume, &rig.two)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}
