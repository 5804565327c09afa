//! `dunnage demo`

use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context as _, ensure};
use dunnage_driver_api::DriverEntry;

use super::output::Through;
use super::{Output, Program, Run, Status};
use crate::client::Interrupt;
use crate::demo::{self, Human, Lines, RunningHost, Show};
use crate::host::Host;

/// Show whole lives of volumes, step by step: no configuration and no cluster needed
///
/// Starts the host in a temporary folder and in namespaces of its own, plays the orchestrator over its sockets, and
/// shows that nothing is left. Root sees every driver, others `dir`. The exit status is 1 where a step failed.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Keep the folder with the configuration and the roots
    #[arg(long)]
    keep: bool,
}

impl Run for Demo {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let drivers = program.drivers();
        let names: Vec<_> = drivers.iter().map(|driver| driver.name).collect();
        ensure!(
            names.iter().any(|name| demo::SHOWN.contains(name)),
            "the demo shows the drivers {}, and this program has {}: try `bench` on a socket that it serves",
            demo::SHOWN.join(" and "),
            names.join(", ")
        );
        // Before there is a second thread: the kernel refuses it to others.
        let footing = demo::enter_namespaces()?;
        let to = BufWriter::new(Through(output));
        let mut show: Box<dyn Show + '_> = if self.json { Box::new(Lines(to)) } else { Box::new(Human::new(to, true)) };
        let runtime = crate::host::runtime().context("cannot start the runtime")?;
        let done = runtime.block_on(async {
            let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
            let options = demo::Options { footing, keep: self.keep, drivers: names };
            let start = async |config: &Path| start(config, drivers).await.map_err(|error| format!("{error:#}"));
            demo::run(options, &interrupt, show.as_mut(), start).await.context("cannot make the folder of the demo")
        });
        // A call that hangs in the kernel must not keep the process.
        runtime.shutdown_background();
        Ok(if done? { Status::Success } else { Status::Failure })
    }
}

impl RunningHost for Host {
    async fn stop(self) -> Result<(), String> {
        match Self::stop(self).await.as_slice() {
            [] => Ok(()),
            running => Err(format!("{} operations are still running", running.len())),
        }
    }
}

/// What the demo starts.
async fn start(config: &Path, drivers: &[DriverEntry]) -> anyhow::Result<Host> {
    let text = std::fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
    Host::start_alone(&text, drivers).await.map_err(anyhow::Error::from_boxed)
}
