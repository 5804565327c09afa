//! `dunnage serve`

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigFile, Output, Program, Run, Status};
use crate::config::{Config, Mode};
use crate::host::{self, Host};
use crate::mount::{Audience, EngineOptions};
use crate::telemetry::{self, Telemetry};

/// Serve the configured backends until told to stop (SIGTERM, SIGINT)
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}

impl Run for Serve {
    fn run(self, program: &Program, _: &mut Output) -> anyhow::Result<Status> {
        let config = self.config.load(program.drivers())?;
        telemetry::init(config.log)?;
        let (version, node, file) = (program.version(), &config.node, self.config.path().display());
        tracing::info!(version, %node, config = %file, "{} starts", program.name());
        // What is wrong from now on is told as everything else that is logged.
        run(config).or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            Ok(Status::Failure)
        })
    }
}

fn run(config: Config) -> anyhow::Result<Status> {
    let options = EngineOptions { audience: Audience::host() };
    // These two before there is a second thread.
    host::keep_heap_small();
    host::drop_privileges()?;
    if config.mode != Mode::Controller && !host::may_mount() {
        tracing::error!(
            "this process may not mount: it has no CAP_SYS_ADMIN, and no volume can be used here; run it as root, in \
             Kubernetes with `privileged: true`"
        );
    }
    let runtime = host::runtime().context("cannot start the runtime")?;
    let served = runtime.block_on(serve(config, options));
    // A call that hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config, options: EngineOptions) -> anyhow::Result<Status> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let host = Host::start(config, Telemetry::new(), options).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop: what runs is given time to end, mounts stay");
    for operation in host.stop().await {
        tracing::warn!(rpc = operation.rpc, "still running at the end; the same call finds it again");
    }
    Ok(Status::Success)
}
