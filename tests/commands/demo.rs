//! `dunnage demo`: as root, as anybody else, and in a user namespace that is there already.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{NOBODY, Need, Scratch, can_run, loop_devices_beneath, mounts_beneath};
use serde_json::Value;

use crate::{DUNNAGE, Running};

/// A folder for what the demo makes, and the program where anybody can start it.
struct Rig {
    scratch: Scratch,
    program: PathBuf,
    tmp: PathBuf,
}

impl Rig {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        let (program, tmp) = (scratch.path().join("dunnage"), scratch.folder("tmp")?);
        fs::copy(DUNNAGE, &program)?;
        if rustix::process::geteuid().is_root() {
            chown(&tmp, Some(NOBODY), Some(NOBODY))?;
        }
        Ok(Self { scratch, program, tmp })
    }

    /// The demo, started by `program` with `arguments` before its own.
    fn demo(&self, through: &[&str]) -> Command {
        let mut line: Vec<_> = through.iter().map(PathBuf::from).collect();
        line.extend([self.program.clone(), "demo".into()]);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env("TMPDIR", &self.tmp).current_dir("/");
        command
    }

    /// What a run that went well says: its first event, and the steps.
    fn is_well(&self, command: &mut Command) -> Result<(Value, Vec<Value>)> {
        let (status, text) = Running::start(command.arg("--json"))?.end()?;
        let events: Vec<Value> =
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("not JSON, line by line")?;
        ensure!(status.success(), "it ended with {status}: {text}");
        let (first, last) = (events.first().context("no events")?, events.last().context("no events")?);
        assert_eq!((&first["event"], &last["event"]), (&"start".into(), &"end".into()), "{text}");
        let steps: Vec<_> = events.iter().filter(|event| event["event"] == "step").cloned().collect();
        ensure!(steps.iter().all(|step| step["ok"] == true), "{text}");
        assert_eq!((&last["failed"], &last["steps"]), (&0.into(), &steps.len().into()), "{last}");
        self.nothing_is_left()?;
        Ok((first.clone(), steps))
    }

    fn nothing_is_left(&self) -> Result<()> {
        let left: Vec<_> = fs::read_dir(&self.tmp)?.map(|entry| entry.unwrap().path()).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        ensure!(loop_devices_beneath(self.scratch.path()).is_empty(), "a loop device is left");
        ensure!(mounts_beneath(self.scratch.path())?.is_empty(), "a mount is left, and is seen outside of the demo");
        Ok(())
    }
}

/// As a user without any right.
fn as_nobody(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

fn called(steps: &[Value], call: &str) -> usize {
    steps.iter().filter(|step| step["call"] == call).count()
}

#[test]
fn root_sees_every_driver_and_nothing_is_left() -> Result<()> {
    if !can_run("root_sees_every_driver_and_nothing_is_left", &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let (start, steps) = rig.is_well(&mut rig.demo(&[]))?;
    assert_eq!(start["drivers"], serde_json::json!(["dir", "image"]), "{start}");
    for call in
        ["CreateVolume", "NodeStageVolume", "NodePublishVolume", "NodeExpandVolume", "CreateSnapshot", "DeleteVolume"]
    {
        ensure!(called(&steps, call) > 0, "{call} is not shown");
    }
    // For a person: the same steps, in words.
    let (status, text) = Running::start(&mut rig.demo(&[]))?.end()?;
    ensure!(status.success() && !text.contains('\x1b'), "colours without a terminal: {text}");
    for words in ["CreateVolume", "folders.csi.dunnage.dev", "disks.csi.dunnage.dev", "no loop device"] {
        ensure!(text.contains(words), "{words:?} is not in {text}");
    }
    rig.nothing_is_left()
}

#[test]
fn a_user_without_rights_sees_folders_and_why_not_disks() -> Result<()> {
    let test = "a_user_without_rights_sees_folders_and_why_not_disks";
    if !can_run(test, &[Need::UserNamespaces])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let (start, steps) = rig.is_well(as_nobody(&mut rig.demo(&[])))?;
    assert_eq!(start["drivers"], serde_json::json!(["dir"]), "{start}");
    ensure!(start["without"].as_str().is_some_and(|why| why.contains("needs root")), "{start}");
    ensure!(called(&steps, "NodePublishVolume") > 0, "nothing is published");
    Ok(())
}

#[test]
fn root_of_a_user_namespace_sees_what_a_user_without_rights_does() -> Result<()> {
    let test = "root_of_a_user_namespace_sees_what_a_user_without_rights_does";
    if !can_run(test, &[Need::UserNamespaces, Need::Program("unshare")])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    for through in [&["unshare", "--user", "--map-root-user"][..], &["unshare", "--user", "--map-root-user", "--mount"]]
    {
        let (start, _) = rig.is_well(as_nobody(&mut rig.demo(through)))?;
        assert_eq!(start["drivers"], serde_json::json!(["dir"]), "{start}");
    }
    Ok(())
}

#[test]
fn ctrl_c_at_any_time_leaves_nothing() -> Result<()> {
    if !can_run("ctrl_c_at_any_time_leaves_nothing", &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let mut interrupted = 0;
    for lines in (1..90).step_by(6) {
        let mut demo = Running::start(rig.demo(&[]).arg("--json"))?;
        for _ in 0..lines {
            demo.line()?;
        }
        demo.interrupt()?;
        let (status, rest) = demo.end()?;
        rig.nothing_is_left().with_context(|| format!("interrupted after {lines} lines, then: {rest}"))?;
        let last: Value = serde_json::from_str(rest.lines().last().unwrap_or("null"))?;
        if last["interrupted"] == true {
            interrupted += 1;
            ensure!(status.code() == Some(1), "ended with {status}");
        }
    }
    ensure!(interrupted > 5, "only {interrupted} were interrupted: the test does not test");
    Ok(())
}

#[test]
fn a_reader_that_leaves_ends_the_demo_and_nothing_is_left() -> Result<()> {
    if !can_run("a_reader_that_leaves_ends_the_demo_and_nothing_is_left", &[Need::Root])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    // As `dunnage demo | head -5` does.
    let mut reader = Command::new("sh");
    reader.args(["-c", "\"$0\" demo --json | head -5"]).arg(&rig.program).env("TMPDIR", &rig.tmp).current_dir("/");
    let (_, text) = Running::start(&mut reader)?.end()?;
    assert_eq!(text.lines().count(), 5);
    rig.nothing_is_left()
}
