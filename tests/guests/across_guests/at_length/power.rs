//! The power of the storage node is cut while volumes are made and deleted: after the next boot everything that was
//! answered is so, and what was not is done by its repetition; nothing is lost, and nothing left.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dunnage_test_common::{Fault, covers};
use dunnage_test_vm::{Guest, Hardware, Job};

use crate::across_guests::Rig;
use crate::node;

/// The moments within a call, told from its beginning: a guest needs seconds for one.
const MOMENTS: [(&str, Duration); 4] = [
    ("creating", Duration::from_millis(50)),
    ("deleting", Duration::from_millis(300)),
    ("creating", Duration::from_millis(900)),
    ("creating", Duration::from_millis(2500)),
];
/// How many calls of that kind are let through before.
const BEFORE: usize = 2;

/// What the node was asked for and what it answered, as far as that came through.
#[derive(Debug, Default)]
struct Told {
    /// The names of those that were made, each with its id, and of those whose making was not answered, without.
    made: BTreeMap<String, Option<String>>,
    /// Those whose deletion was asked for, and whether it was answered.
    deleted: BTreeMap<String, bool>,
    whole: bool,
}

impl Told {
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["whole"] => self.whole = true,
            ["creating", name] => drop(self.made.insert(name.into(), None)),
            ["made", name, id] => drop(self.made.insert(name.into(), Some(id.into()))),
            ["deleting", name] => drop(self.deleted.insert(name.into(), false)),
            ["deleted", name] => drop(self.deleted.insert(name.into(), true)),
            _ => {}
        }
    }

    /// For the node's environment: `name=id` of what is there, `name=` of what may be, `-name=id` of what is not there any
    /// more or may be deleted.
    fn text(&self) -> String {
        let word = |(name, id): (&String, &Option<String>)| {
            let id = id.clone().unwrap_or_default();
            let gone = if self.deleted.contains_key(name) { "-" } else { "" };
            format!("{gone}{name}={id}")
        };
        self.made.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Cuts the power once in each of [`MOMENTS`], and has the node look after each.
fn survives(test: &str, driver: &str) -> Result<()> {
    let Some(rig) = Rig::new(test)? else { return Ok(()) };
    let (store, state) = (rig.path("store"), rig.path("state"));
    for (disk, mebibytes) in [(&store, 1024), (&state, 64)] {
        File::create(disk)?.set_len(mebibytes << 20)?;
    }
    let hardware = Hardware::default().memory(2 << 10).disk(&store).disk(&state);
    let mut before = Told::default();
    for (round, (call, moment)) in MOMENTS.into_iter().enumerate() {
        let mut guest = rig.boot("node", &hardware)?;
        let told = cut_within(&mut guest, &job(driver, round, &before)?, call, moment)
            .with_context(|| format!("round {round}"))?;
        ensure!(round == 0 || told.whole, "round {round}: it is not whole after {before:?}");
        before = told;
    }
    let mut last = rig.boot("node", &hardware)?;
    let mut told = Told::default();
    let mut lines = Vec::new();
    let done = last.run(&job(driver, usize::MAX, &before)?, |line| {
        told.hear(line);
        lines.push(line.to_owned());
    })?;
    ensure!(done && told.whole, "it is not whole after {before:?}:\n{}", lines.join("\n"));
    for rpc in ["CreateVolume", "DeleteVolume", "NodeStageVolume"] {
        covers(driver.split('-').next().unwrap_or(driver), rpc, Fault::PowerCut);
    }
    Ok(())
}

/// Runs the node until its power is cut this long after a call has begun.
fn cut_within(guest: &mut Guest, job: &Job, call: &str, moment: Duration) -> Result<Told> {
    let power = guest.power()?;
    let (mut told, mut calls, mut lines) = (Told::default(), 0, Vec::new());
    let (begun, told_to_cut) = std::sync::mpsc::channel::<()>();
    let ended = thread::scope(|scope| {
        scope.spawn(move || {
            if told_to_cut.recv().is_ok() {
                thread::sleep(moment);
                power.cut()
            } else {
                Ok(())
            }
        });
        let ended = guest.run(job, |line| {
            lines.push(line.to_owned());
            told.hear(line);
            calls += usize::from(line.starts_with(call));
            if calls > BEFORE {
                let _ = begun.send(());
            }
        });
        drop(begun);
        ended
    });
    match ended {
        Ok(_) => bail!("the node has ended by itself:\n{}", lines.join("\n")),
        Err(_) => Ok(told),
    }
}

fn job(driver: &str, round: usize, before: &Told) -> Result<Job> {
    let program = std::env::current_exe()?;
    let job = Job::new(&program, env!("CARGO_MANIFEST_DIR").as_ref()).args(["--exact", node::TEST]);
    let job = job.env(node::DRIVER, driver).env(node::BEFORE, &before.text()).env("DUNNAGE_GUEST", "1");
    Ok(job.env(node::ROUND, &if round == usize::MAX { "last".to_owned() } else { round.to_string() }))
}

#[test]
fn thick_logical_volumes_survive_the_power_of_their_node() -> Result<()> {
    survives("thick_logical_volumes_survive_the_power_of_their_node", "lvm-thick")
}

#[test]
fn thin_logical_volumes_survive_the_power_of_their_node() -> Result<()> {
    survives("thin_logical_volumes_survive_the_power_of_their_node", "lvm-thin")
}

#[test]
fn images_survive_the_power_of_their_node() -> Result<()> {
    survives("images_survive_the_power_of_their_node", "image")
}

#[test]
fn directories_survive_the_power_of_their_node() -> Result<()> {
    survives("directories_survive_the_power_of_their_node", "dir")
}
