//! What Cargo checks and builds beside the tests.

use anyhow::{Context, Result};

use crate::session::Session;
use crate::summary::Outcome;

pub(crate) fn fmt(session: &mut Session) -> Result<Outcome> {
    session.cargo().args(["fmt", "--all", "--check"]).run(&session.log("fmt"))?;
    Ok(Outcome::passed())
}

pub(crate) fn clippy(session: &mut Session) -> Result<Outcome> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    session.cargo().args(arguments).run(&session.log("clippy"))?;
    Ok(Outcome::passed())
}

pub(crate) fn doc(session: &mut Session) -> Result<Outcome> {
    let cargo = session.cargo().args(["doc", "--workspace", "--no-deps", "--locked"]);
    cargo.env("RUSTDOCFLAGS", "-D warnings").run(&session.log("doc"))?;
    Ok(Outcome::passed())
}

/// Prints the size of the program as it is released; nothing is asserted, since a size is no behaviour.
pub(crate) fn size(session: &mut Session) -> Result<Outcome> {
    session.cargo().args(["build", "--release", "--locked", "--bin", "dunnage"]).run(&session.log("size"))?;
    let binary = session.target.join("release/dunnage");
    let bytes = binary.metadata().with_context(|| format!("cannot read {}", binary.display()))?.len();
    let note = format!("the stripped release binary has {:.2} MB", bytes as f64 / 1e6);
    println!("{note}");
    Ok(Outcome::passed().note(note))
}
