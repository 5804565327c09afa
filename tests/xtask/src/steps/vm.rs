//! The tests that need a stock Debian kernel, in a guest that has it.
//!
//! Whatever lies in a module `in_guest`, in any test binary of the workspace, runs there and nowhere else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunnage_test_vm::{Guest, Job, Kernel};
use serde_json::Value;

use super::cargo_test::count;
use super::packages;
use crate::command::Log;
use crate::privilege;
use crate::session::Session;
use crate::summary::Outcome;

/// What the names of such tests have in them.
pub(crate) const MODULE: &str = "in_guest::";
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
    let mut jobs = Vec::new();
    for binary in binaries(session, &log)? {
        let mut names = tests(session, &binary)?;
        names.retain(|name| parts.is_empty() || parts.iter().any(|part| name.contains(part)));
        if !names.is_empty() {
            let job = Job::new(&binary.program, &binary.folder).args(["--exact"]).args(names);
            jobs.push(job.env("DUNNAGE_GUEST", "1").env("DUNNAGE_REQUIRE_ALL", "1"));
        }
    }
    ensure!(!jobs.is_empty(), "no test binary has such a test in a module {MODULE}");
    println!("booting a guest; its console: {}", session.target.join("vm/guest/console.log").display());
    let mut guest = Guest::boot(&kernel, &session.target.join("vm/guest"))?;
    let mut log = Log::append(&log)?;
    let mut outcome = Outcome::default();
    for job in &jobs {
        println!("$ {job}");
        let before = outcome.failed;
        let mut logged = Ok(());
        let ended = guest.run(job, |line| {
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

/// The names of its tests that are for a guest.
fn tests(session: &Session, binary: &Binary) -> Result<Vec<String>> {
    let list = session.command(&binary.program.to_string_lossy()).folder(&binary.folder);
    let list = list.args([MODULE, "--list", "--format", "terse"]).output()?;
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
