//! `dunnage init`

use std::sync::Arc;

use anstyle::AnsiColor;
use anyhow::bail;
use dunnage_driver_api::{BackendName, Error, Finding, Init as Done, InstanceId, Opening, System};

use super::{Cell, ConfigFile, Output, Program, Run, Status, Table};
use crate::config::{BackendConfig, Config};
use crate::host::Memory;

/// Mark the empty places of backends as ours, so that they are served
///
/// Safe to repeat: what is ours already stays as it is, and what is neither empty nor ours is not touched.
#[derive(clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigFile,

    /// The backends; all that this node has where none is named
    #[arg(value_name = "BACKEND")]
    backends: Vec<BackendName>,
}

impl Run for Init {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let config = self.config.load(program.drivers())?;
        let memory = Memory::new(&config.state);
        let mut status = Status::Success;
        let mut table = Table::new(0);
        for backend in chosen(&config, &self.backends)? {
            let opening = backend.opening(&config.node, config.mode, Arc::new(System));
            // Who names a backend may mean to replace its store; who names none means those that are new.
            let missed = if self.backends.is_empty() { missed(&memory, backend, &opening) } else { None };
            let outcome = match missed.map_or_else(|| backend.configured.init(&opening), Err) {
                Ok(Done::Created(instance)) => {
                    let outcome = format_args!("is ours now: {instance}{}", accept(&memory, backend, &instance)?);
                    Cell::styled(outcome, AnsiColor::Green.on_default())
                }
                Ok(Done::Existing(instance)) => {
                    format!("was ours already: {instance}{}", accept(&memory, backend, &instance)?).into()
                }
                Err(error) => {
                    status = Status::Failure;
                    Cell::styled(format_args!("failed: {}", error.report()), AnsiColor::Red.on_default())
                }
            };
            table.row([backend.name.as_str().into(), outcome]);
        }
        output.table(&table)?;
        Ok(status)
    }
}

/// Says so where the store that the backend had is not in its place: then nothing is marked.
fn missed(memory: &Memory, backend: &BackendConfig, opening: &Opening) -> Option<Error> {
    if matches!(memory.instance(&backend.name), Ok(None)) {
        return None;
    }
    let Finding { text, remedy, .. } = memory.mismatch(&backend.name, &backend.configured.check(opening))?;
    Some(Error::precondition(format!("{text}: {remedy}")))
}

/// Lets the node know the instance as that of the backend; says so where it had another one.
fn accept(memory: &Memory, backend: &BackendConfig, instance: &InstanceId) -> anyhow::Result<String> {
    let before = memory.accept(&backend.name, instance).map_err(|error| anyhow::anyhow!(error.report()))?;
    Ok(before.map(|before| format!(", and takes the place of instance {before}")).unwrap_or_default())
}

fn chosen<'a>(config: &'a Config, names: &[BackendName]) -> anyhow::Result<Vec<&'a BackendConfig>> {
    if names.is_empty() {
        return Ok(config.backends.iter().filter(|backend| backend.has_store(&config.node)).collect());
    }
    names.iter().map(|name| one(config, name)).collect()
}

fn one<'a>(config: &'a Config, name: &BackendName) -> anyhow::Result<&'a BackendConfig> {
    let Some(backend) = config.backends.iter().find(|backend| backend.name == *name) else {
        let known: Vec<_> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
        bail!("there is no backend {name} in the configuration: there are {}", known.join(", "));
    };
    if !backend.has_store(&config.node) {
        bail!("the backend {name} is not on this node, {}: run this on one of its `nodes`", config.node);
    }
    Ok(backend)
}
