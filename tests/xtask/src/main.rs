//! The project's test command: `cargo xtask test` installs what the tests need and runs everything.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A command-line program: the terminal is its output.

mod command;
mod matrix;
mod privilege;
mod public_api;
mod session;
mod steps;
mod summary;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use session::Session;
use steps::STEPS;
use summary::Summary;

/// Installs what the tests need and runs them.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every step, or those named, and ends with a summary
    Test {
        /// Runs this step alone; may be repeated
        #[arg(long, value_name = "STEP", value_parser = step_names())]
        only: Vec<String>,
    },
    /// Runs the tests that need a stock kernel, in a guest, all or those named
    Vm {
        /// Runs those with one of these in their names
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Writes docs/matrix.md: what is tested of each driver against what goes wrong, as tests ran here
    Matrix,
    /// Lists the steps of `test`
    List,
    /// Compares the public API of drivers/api with its checked-in listing
    PublicApi {
        /// Writes the listing anew instead
        #[arg(long)]
        bless: bool,
    },
}

fn step_names() -> clap::builder::PossibleValuesParser {
    STEPS.iter().map(|step| step.name).collect::<Vec<_>>().into()
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Test { only } => test(&only),
        Task::Vm { names } => {
            let mut session = Session::start()?;
            session.renew_log("vm")?;
            let mut summary = Summary::default();
            summary.add("vm", || steps::vm::run_those(&mut session, &names));
            Ok(end(&summary))
        }
        Task::Matrix => matrix::write(&Session::start()?).map(|()| ExitCode::SUCCESS),
        Task::List => {
            for step in STEPS {
                println!("{:12} {}", step.name, step.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::PublicApi { bless } => {
            let session = Session::start()?;
            if bless {
                public_api::bless(&session.root)?
            } else {
                public_api::check(&session.root)?
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Every step runs, whatever became of those before it, so that one run tells all there is to mend.
fn test(only: &[String]) -> Result<ExitCode> {
    let mut session = Session::start()?;
    let mut summary = Summary::default();
    for step in STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)) {
        println!("\n== {}: {}", step.name, step.about);
        session.renew_log(step.name)?;
        summary.add(step.name, || (step.run)(&mut session));
    }
    Ok(end(&summary))
}

fn end(summary: &Summary) -> ExitCode {
    print!("\n{summary}");
    if summary.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
