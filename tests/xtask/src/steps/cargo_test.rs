//! The tests of the workspace.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::vm;
use crate::matrix::{Results, VARIABLE};
use crate::privilege;
use crate::session::Session;
use crate::summary::Outcome;

/// Runs all of them with everything required: what cannot run fails.
pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let log = session.log("test");
    let mut cargo = session.cargo().args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    // Those have a step of their own, with the kernel that they need.
    cargo = cargo.args(["--", "--skip", vm::MODULE, "--skip", vm::ACROSS]);
    cargo = cargo.env("DUNNAGE_REQUIRE_ALL", "1").env("DUNNAGE_CSI_SANITY", csi_sanity(session));
    if !privilege::is_root() {
        match root_runner(session)? {
            Some((variable, runner)) => cargo = cargo.env(&variable, runner),
            None => println!("not root, and there is no sudo: the tests that need root will fail"),
        }
    }
    let notes = Results::notes(session)?;
    let (mut outcome, mut results) = (Outcome::default(), Results::default());
    let status = cargo.env(VARIABLE, &notes).watch(&log, |line| {
        count(&mut outcome, line);
        results.see(line);
    });
    // Also where it did not come to its end.
    results.noted(&fs::read_to_string(&notes)?)?;
    results.keep(session)?;
    let status = status?;
    if !status.success() && outcome.failed == 0 {
        // It did not compile, or a test binary died before it could count.
        outcome.failed = 1;
        outcome = outcome.note(format!("cargo test failed ({status}); see {}", log.display()));
    }
    Ok(outcome)
}

/// Where the step `csi-sanity` puts it.
pub(crate) fn csi_sanity(session: &Session) -> PathBuf {
    session.tools.join("csi-sanity")
}

/// Builds as the user and starts the test binaries as root: the variable that tells Cargo so, and its value.
fn root_runner(session: &Session) -> Result<Option<(String, String)>> {
    if session.find("sudo").is_none() {
        return Ok(None);
    }
    let version = session.command("rustc").args(["-vV"]).output()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    // Sudo replaces PATH, and with it loses the Go found or installed before.
    let runner = [&["sudo"], privilege::sudo_arguments(), &["-E", "env"]].concat().join(" ");
    Ok(Some((variable, format!("{runner} PATH={}", session.path().to_string_lossy()))))
}

/// Adds what a line of libtest's output tells.
pub(super) fn count(outcome: &mut Outcome, line: &str) {
    if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
        outcome.notes.push(format!("failed: {name}"));
    }
    let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
    for part in counts.split("; ") {
        match part.split_once(' ').and_then(|(number, what)| Some((number.parse::<usize>().ok()?, what))) {
            Some((number, "passed")) => outcome.passed += number,
            Some((number, "failed")) => outcome.failed += number,
            Some((number, "ignored")) => outcome.skipped += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_binaries_are_added_up() {
        let mut outcome = Outcome::default();
        let output = "running 3 tests\n\
            test a ... ok\n\
            test b::c ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.20s\n";
        output.lines().for_each(|line| count(&mut outcome, line));
        let notes = vec!["failed: b::c".to_string()];
        assert_eq!(outcome, Outcome { passed: 41, failed: 1, skipped: 1, notes });
    }
}
