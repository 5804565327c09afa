//! A binary with the host's commands: ours, or a vendor's.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use dunnage_driver_api::DriverEntry;

use super::{Arguments, Output, Run, Status};

const OWN_NAME: &str = "dunnage";
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A binary with the host's commands: its name, its version and its drivers.
pub struct Program {
    name: &'static str,
    version: String,
    drivers: Vec<DriverEntry>,
}

impl Program {
    /// Dunnage itself.
    pub fn dunnage(drivers: impl IntoIterator<Item = DriverEntry>) -> Self {
        Self { name: OWN_NAME, version: OWN_VERSION.into(), drivers: drivers.into_iter().collect() }
    }

    /// A vendor's binary, which shows its own name and version in its help, its completions and its log; `--version`
    /// names that of Dunnage too.
    pub fn new(name: &'static str, version: &str, drivers: impl IntoIterator<Item = DriverEntry>) -> Self {
        let version = format!("{version} ({OWN_NAME} {OWN_VERSION})");
        Self { name, version, drivers: drivers.into_iter().collect() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its drivers.
    pub fn drivers(&self) -> &[DriverEntry] {
        &self.drivers
    }

    /// Runs the command line of this process to its end, and gives the exit status.
    pub fn main(self) -> ExitCode {
        self.run(std::env::args_os(), &mut Output::of_process()).into()
    }

    /// Runs a command line, of which the first item is the program's name, and writes to `output`.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>, output: &mut Output) -> Status {
        let parsed = self.command().try_get_matches_from(arguments);
        match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
            Ok(arguments) => arguments.command.run(self, output).unwrap_or_else(|error| output.failure(&error)),
            Err(error) => {
                let text = error.render();
                let (written, status) = if error.use_stderr() {
                    (output.note(text.ansi()), Status::Usage)
                } else {
                    (output.text(text.ansi()), Status::Success)
                };
                written.map_or(Status::Failure, |()| status)
            }
        }
    }

    /// The arguments that it takes.
    pub(super) fn command(&self) -> clap::Command {
        Arguments::command().name(self.name).bin_name(self.name).version(self.version.clone())
    }
}
