//! The commands of the program.
//!
//! A command is a file with its arguments as a type that implements `Run`, and a line in `commands!`.

mod bench;
mod check;
mod completions;
mod config_file;
mod conformance;
mod create_mounted;
mod demo;
mod guard;
mod init;
mod output;
mod program;
mod schema;
mod serve;
mod volumes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dunnage_driver_api::DriverEntry;

pub use config_file::ConfigFile;
pub use output::{Cell, Output, Table};
pub use program::Program;
pub use serve::Serve;

/// Turns any storage into CSI volumes.
#[derive(Parser)]
#[command(
    after_help = "RUST_LOG sets what is logged. The exit status is 0, 1 where something failed, 2 for wrong arguments."
)]
struct Arguments {
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
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status>;
}

macro_rules! commands {
    ($($(#[$attribute:meta])* $module:ident::$command:ident),+ $(,)?) => {
        #[derive(Subcommand)]
        enum Command {
            $($(#[$attribute])* $command($module::$command)),+
        }

        impl Run for Command {
            fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
                match self {
                    $(Self::$command(command) => command.run(program, output)),+
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
    conformance::Conformance,
    schema::Schema,
    completions::Completions,
    #[command(hide = true)]
    create_mounted::CreateMounted,
    #[command(hide = true)]
    guard::GuardFrozen,
}

/// Dunnage with these drivers: reads the arguments, runs the command, and gives the exit status. What a binary calls in
/// its `main`; one with a name of its own calls [`Program::main`].
pub fn main(drivers: impl IntoIterator<Item = DriverEntry>) -> ExitCode {
    Program::dunnage(drivers).main()
}
