//! The tests that need a stock Debian kernel, in guests that have it.
//!
//! Whatever lies in a module `in_guest`, in any test binary of the workspace, runs in one guest and nowhere else. What lies
//! in a module `across_guests` runs on this machine and boots several guests of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunnage_test_vm::{Guest, Hardware, Job, Kernel};
use serde_json::Value;

use super::cargo_test::count;
use super::packages;
use crate::command::Log;
use crate::privilege;
use crate::session::Session;
use crate::summary::Outcome;

/// What the names of tests have in them that run in a guest.
pub(crate) const MODULE: &str = "in_guest::";
/// What the names of those tests have in them that are run only where they are named: all of them together take longer
/// than everything else.
const AT_LENGTH: &str = "at_length::";
/// What the names of tests have in them that boot guests of their own.
pub(crate) const ACROSS: &str = "across_guests::";
const STEP: &str = "vm";

/// A test binary and the folder that its tests expect to run in.
struct Binary {
    program: PathBuf,
    folder: PathBuf,
}

/// Runs all of them.
pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    run_those(session, &[])
}

/// Runs those whose names have one of `parts` in them, or all where there is none.
pub(crate) fn run_those(session: &mut Session, parts: &[String]) -> Result<Outcome> {
    packages::install(session)?;
    let log = session.log(STEP);
    let kernel = kernel(session)?;
    let binaries = binaries(session, &log)?;
    let those_of = |module: &str| -> Result<Vec<(&Binary, Vec<String>)>> {
        let mut found = Vec::new();
        for binary in &binaries {
            let mut names = tests(session, binary, module)?;
            names.retain(|name| match parts {
                [] => !name.contains(AT_LENGTH),
                parts => parts.iter().any(|part| name.contains(part)),
            });
            if !names.is_empty() {
                found.push((binary, names));
            }
        }
        Ok(found)
    };
    let (within, across) = (those_of(MODULE)?, those_of(ACROSS)?);
    ensure!(
        !within.is_empty() || !across.is_empty(),
        "no test binary has such a test in a module {MODULE} or {ACROSS}"
    );
    let mut outcome = Outcome::default();
    if !within.is_empty() {
        outcome = run_within(session, &kernel, &within, &log)?;
    }
    for (binary, names) in across {
        let command = session.command(&binary.program.to_string_lossy()).folder(&binary.folder);
        // One after the other: each boots guests that want all of the machine.
        let command = command.args(["--exact", "--test-threads", "1"]).args(names);
        let command = command.env("DUNNAGE_GUESTS", session.target.join("vm")).env("DUNNAGE_REQUIRE_ALL", "1");
        let before = outcome.failed;
        let status = command.watch(&log, |line| count(&mut outcome, line))?;
        if !status.success() && outcome.failed == before {
            outcome = fail(outcome, format!("{} failed ({status})", binary.program.display()));
        }
    }
    Ok(outcome)
}

/// Runs tests of these names in one guest.
fn run_within(session: &Session, kernel: &Kernel, tests: &[(&Binary, Vec<String>)], log: &Path) -> Result<Outcome> {
    println!("booting a guest; its console: {}", session.target.join("vm/guest/console.log").display());
    let mut guest = Guest::boot(kernel, &session.target.join("vm/guest"), &Hardware::default())?;
    let mut log = Log::append(log)?;
    let mut outcome = Outcome::default();
    for (binary, names) in tests {
        let job = Job::new(&binary.program, &binary.folder).args(["--exact"]).args(names);
        let job = job.env("DUNNAGE_GUEST", "1").env("DUNNAGE_REQUIRE_ALL", "1");
        println!("$ {job}");
        let before = outcome.failed;
        let mut logged = Ok(());
        let ended = guest.run(&job, |line| {
            println!("{line}");
            logged = std::mem::replace(&mut logged, Ok(())).and_then(|()| log.line(line));
            count(&mut outcome, line);
        });
        logged?;
        match ended {
            Ok(succeeded) if succeeded == (outcome.failed == before) => {}
            // It died before it could count.
            Ok(_) => outcome = fail(outcome, format!("{job} failed")),
            // What was counted so far is told too.
            Err(error) => {
                println!("{error:#}");
                return Ok(fail(outcome, format!("{error:#}")));
            }
        }
    }
    Ok(outcome)
}

fn fail(outcome: Outcome, note: String) -> Outcome {
    Outcome { failed: outcome.failed + 1, ..outcome }.note(note)
}

/// Where apt's lists are missing, or too old for what the archive has, they are fetched once.
fn kernel(session: &Session) -> Result<Kernel> {
    let cache = session.target.join("vm");
    Kernel::fetch(&cache).or_else(|error| {
        println!("{error:#}");
        privilege::as_root(session, "apt-get", &["update", "-q"])?.run(&session.log(STEP))?;
        Kernel::fetch(&cache)
    })
}

/// Every test binary of the workspace, built.
fn binaries(session: &Session, log: &Path) -> Result<Vec<Binary>> {
    let build = ["test", "--workspace", "--locked", "--no-run"];
    session.cargo().args(build).run(log)?;
    let messages = session.cargo().args(build).args(["--quiet", "--message-format", "json"]).output()?;
    let mut seen = BTreeSet::new();
    let mut binaries = Vec::new();
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message).context("cargo has sent a message that is no JSON")?;
        let Some((program, folder)) = parse(&message) else { continue };
        if seen.insert(program.clone()) {
            binaries.push(Binary { program, folder });
        }
    }
    Ok(binaries)
}

/// The binary that a message of Cargo tells of, if it is one of tests.
fn parse(message: &Value) -> Option<(PathBuf, PathBuf)> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    Some((program.into(), Path::new(message["manifest_path"].as_str()?).parent()?.into()))
}

/// The names of its tests in such a module.
fn tests(session: &Session, binary: &Binary, module: &str) -> Result<Vec<String>> {
    let list = session.command(&binary.program.to_string_lossy()).folder(&binary.folder);
    let list = list.args([module, "--list", "--format", "terse"]).output()?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn test_binaries_are_told_from_all_else_that_is_built() {
        let message = |test: bool| {
            json!({"reason": "compiler-artifact", "manifest_path": "/w/a/Cargo.toml", "profile": {"test": test},
                "executable": "/w/target/debug/deps/a-1"})
        };
        assert_eq!(parse(&message(true)), Some(("/w/target/debug/deps/a-1".into(), "/w/a".into())));
        assert_eq!(parse(&message(false)), None);
        assert_eq!(parse(&json!({"reason": "build-finished", "success": true})), None);
    }
}
