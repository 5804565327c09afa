//! `dunnage conformance`

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::output::Through;
use super::{Output, Program, Run, Status, Table};
use crate::client::{Endpoint, Interrupt};
use crate::conformance::{self, Human, Options, Params, Quiet, Show};

/// Test any CSI plugin against the specification
///
/// Makes, uses and deletes volumes and snapshots of its own over the plugin's socket, chosen by what the plugin
/// advertises. Each failure says what was sent, what came, and what the specification wants. What is published is looked
/// at only as root. The exit status is 1 where a rule is broken; what is only recommended is a warning.
#[derive(Debug, clap::Args)]
pub(super) struct Conformance {
    /// The plugin's socket: unix:///path, unix:path or a path
    #[arg(long, value_name = "SOCKET", env = "CSI_ENDPOINT", required_unless_present = "list")]
    endpoint: Option<Endpoint>,

    /// What is known of the plugin: class parameters, secrets, sizes, folders (YAML)
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,

    /// Start the plugin with this command of the shell, and kill it between and within calls too
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,

    /// What the moments of kills come from; printed at the end [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,

    /// Only cases with this in their name; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,

    /// List the cases with their sections, and test nothing
    #[arg(long)]
    list: bool,

    /// Fail where a recommendation is not followed too
    #[arg(long)]
    strict: bool,

    /// Write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Run for Conformance {
    fn run(self, _: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let Some(endpoint) = self.endpoint.clone().filter(|_| !self.list) else {
            list(output)?;
            return Ok(Status::Success);
        };
        let params = self.params.as_deref().map_or_else(|| Ok(Params::default()), Params::read)?;
        let seed = self.seed.unwrap_or_else(seed);
        let options = Options { endpoint, params, only: self.cases, start: self.start, seed };
        let runtime = crate::host::runtime().context("cannot start the runtime")?;
        let report = {
            let mut show: Box<dyn Show + '_> = match self.json {
                true => Box::new(Quiet),
                false => Box::new(Human(BufWriter::new(Through(output)))),
            };
            let report = runtime.block_on(async {
                let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
                anyhow::Ok(conformance::run(options, &interrupt, show.as_mut()).await?)
            });
            // A call that hangs in the kernel must not keep the process.
            runtime.shutdown_background();
            report?
        };
        if let Some(file) = self.junit {
            let text = conformance::junit(&report).context("cannot write the report")?;
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.json {
            output.json(&report)?;
        }
        let failed = report.failed > 0 || report.interrupted || (self.strict && report.warned > 0);
        Ok(if failed { Status::Failure } else { Status::Success })
    }
}

fn list(output: &mut Output) -> io::Result<()> {
    let mut table = Table::with_head(["case", "section", "asked for with"]);
    for case in conformance::cases() {
        let strength = match case.strength {
            conformance::Strength::Must => "MUST",
            conformance::Strength::Should => "SHOULD",
        };
        table.row([case.name.into(), case.section.into(), strength.into()]);
    }
    output.table(&table)
}

/// Another one each time; it is printed, so that a run can be had again.
fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
}
