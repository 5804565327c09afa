//! The commands of the program.
//!
//! A command is a file with its arguments as a type that implements `Run`, and a line in `commands!`.

mod bench;
mod check;
mod completions;
mod config_file;
mod demo;
mod init;
mod output;
mod schema;
mod serve;
mod volumes;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dunnage_driver_api::DriverEntry;

pub use config_file::ConfigFile;
pub use output::{Cell, Output, Table};
pub use serve::Serve;

/// Turns any storage into CSI volumes.
#[derive(Parser)]
#[command(
    name = "dunnage",
    version,
    after_help = "RUST_LOG sets what is logged. The exit status is 0, 1 where something failed, 2 for wrong arguments."
)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

/// How a command ended, as the program's exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well: 0.
    Success,
    /// Something failed, and was told: 1.
    Failure,
    /// The arguments are wrong: 2.
    Usage,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// A command that was read from the command line.
trait Run {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What the program shows before it ends with [`Status::Failure`].
    fn run(self, drivers: &[DriverEntry], output: &mut Output) -> anyhow::Result<Status>;
}

macro_rules! commands {
    ($($module:ident::$command:ident),+ $(,)?) => {
        #[derive(Subcommand)]
        enum Command {
            $($command($module::$command)),+
        }

        impl Run for Command {
            fn run(self, drivers: &[DriverEntry], output: &mut Output) -> anyhow::Result<Status> {
                match self {
                    $(Self::$command(command) => command.run(drivers, output)),+
                }
            }
        }
    };
}

commands! {
    serve::Serve,
    volumes::Volumes,
    init::Init,
    check::Check,
    demo::Demo,
    bench::Bench,
    schema::Schema,
    completions::Completions,
}

/// The whole program: reads the arguments, runs the command with these drivers, and gives its exit status. What a
/// binary calls in its `main`.
pub fn main(drivers: impl IntoIterator<Item = DriverEntry>) -> ExitCode {
    let drivers: Vec<_> = drivers.into_iter().collect();
    run(std::env::args_os(), &drivers, &mut Output::of_process()).into()
}

/// Runs a command line, of which the first item is the program's name, and writes to `output`.
pub fn run(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    drivers: &[DriverEntry],
    output: &mut Output,
) -> Status {
    match Program::try_parse_from(arguments) {
        Ok(program) => program.command.run(drivers, output).unwrap_or_else(|error| output.failure(&error)),
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
