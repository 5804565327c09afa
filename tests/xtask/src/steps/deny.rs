//! cargo-deny over the dependencies, by the rules in deny.toml.

use anyhow::Result;

use crate::session::Session;
use crate::summary::Outcome;

const VERSION: &str = "0.20.2";

/// Licences, duplicates and sources are always checked. Advisories need their database, which comes by git from the
/// network: where it cannot be fetched they count as skipped.
pub(crate) fn check(session: &mut Session) -> Result<Outcome> {
    install(session)?;
    let log = session.log("deny");
    let deny = || session.command("cargo-deny").args(["--locked", "--workspace", "--all-features"]);
    deny().args(["check", "licenses", "bans", "sources"]).run(&log)?;
    let outcome = Outcome::passed();
    if let Err(error) = deny().args(["fetch", "db"]).run(&log) {
        let note = format!("advisories were not checked, since their database could not be fetched: {error:#}");
        return Ok(Outcome { skipped: 1, ..outcome }.note(note));
    }
    deny().args(["check", "--disable-fetch", "advisories"]).run(&log)?;
    Ok(Outcome { passed: 2, ..outcome })
}

/// Builds it once; the version is pinned, so that the same tree gives the same answer.
fn install(session: &mut Session) -> Result<()> {
    session.prepend_path(session.tools.join("bin"))?;
    let version = session.command("cargo-deny").args(["--version"]).output();
    if version.is_ok_and(|version| version.trim() == format!("cargo-deny {VERSION}")) {
        return Ok(());
    }
    let cargo = session.cargo().args(["install", "cargo-deny", "--locked", "--version", VERSION, "--debug", "--root"]);
    let cargo = cargo.args([&session.tools]).env("CARGO_TARGET_DIR", session.tools.join("build"));
    // It runs for seconds: what an optimised build would gain costs minutes to make.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").run(&session.log("deny"))
}
