//! Who this process is, and how it does what only root may.

use anyhow::{Result, bail};

use crate::command::Command;
use crate::session::Session;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Nobody can type a password where there is no terminal.
pub(crate) fn sudo_arguments() -> &'static [&'static str] {
    if std::env::var_os("CI").is_some() { &["-n"] } else { &[] }
}

/// `program` as root: directly, or by sudo; an error that says what to do where there is neither.
pub(crate) fn as_root(session: &Session, program: &str, arguments: &[&str]) -> Result<Command> {
    if is_root() {
        return Ok(session.command(program).args(arguments));
    }
    if session.find("sudo").is_none() {
        bail!("this needs root and there is no sudo; run as root: {program} {}", arguments.join(" "));
    }
    Ok(session.command("sudo").args(sudo_arguments()).args([program]).args(arguments).interactive())
}
