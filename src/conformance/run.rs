//! A run from the first question to the report.

use std::time::{Duration, Instant};

use tonic::Code;

use super::failure::{Checked, Failure, Stop};
use super::kit::Kit;
use super::plan::{Case, cases};
use super::started::{STARTING, Started};
use super::{Kind, Outcome, Params, Report, Show, Strength, Verdict};
use crate::client::{Endpoint, Interrupt, Plugin};

/// How a plugin is tested.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What is known of it.
    pub params: Params,
    /// Parts of names: only cases with one of them are gone through; all, where there is none.
    pub only: Vec<String>,
    /// The command that starts the plugin, which may then be killed. It gets `CSI_ENDPOINT`.
    pub start: Option<String>,
    /// What chances come from.
    pub seed: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CannotRun {
    /// No case has such a name.
    #[error("no case has {0:?} in its name; --list shows all of them")]
    NoCase(String),
    /// The plugin does not answer.
    #[error(transparent)]
    Plugin(#[from] crate::client::Error),
    /// It was started, and does not answer.
    #[error("{0}; it printed: {1}")]
    Started(crate::client::Error, String),
    /// It was to be started, and one runs already.
    #[error("a plugin answers at {} already: stop it, or leave out --start; what is started and killed must be alone", .0.path().display())]
    Running(Endpoint),
    /// The parameters say that volumes are used in a way that the plugin refuses.
    #[error("`access` in --params names {0}, and the plugin refuses such volumes: {1}")]
    Access(Kind, String),
    /// The folder for paths cannot be made, or the command not be started.
    #[error("cannot begin: {0}")]
    Local(#[from] std::io::Error),
}

/// Whether a case is asked for.
fn chosen(case: &Case, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|part| case.name.contains(part.as_str()))
}

/// Goes through the cases.
///
/// # Errors
/// Where it cannot begin. Whatever a plugin does wrong is in the report.
pub async fn run(options: Options, interrupt: &Interrupt, show: &mut dyn Show) -> Result<Report, CannotRun> {
    let begin = Instant::now();
    let all = cases();
    if let Some(unknown) = options.only.iter().find(|part| !all.iter().any(|case| case.name.contains(part.as_str()))) {
        return Err(CannotRun::NoCase(unknown.clone()));
    }
    let logs = tempfile::tempdir()?;
    let mut kit = begin_with(&options, logs.path().join("plugin.log")).await?;
    let kinds = find_kinds(&kit).await?;
    kit.set_kinds(kinds);
    let before = super::cases::Before::look(&kit).await;
    kit.before = before;
    let chosen: Vec<_> = all.into_iter().filter(|case| chosen(case, &options.only)).collect();
    let offers = kit.plugin().offers().clone();
    let notes: Vec<_> = elsewhere(kit.plugin().pid()).into_iter().collect();
    show.start(&format!("{} {}", offers.name, offers.version), chosen.len(), &notes)?;
    let mut report = Report {
        plugin: offers.name,
        version: offers.version,
        seed: options.seed,
        interrupted: false,
        passed: 0,
        failed: 0,
        warned: 0,
        skipped: 0,
        micros: 0,
        notes,
        cases: Vec::new(),
    };
    for case in &chosen {
        if interrupt.is_raised() {
            report.interrupted = true;
            break;
        }
        let outcome = one(&kit, case, &options.endpoint, interrupt).await;
        show.outcome(&outcome)?;
        report.cases.push(outcome);
    }
    report.interrupted |= interrupt.is_raised();
    report.micros = micros(begin);
    report.count();
    show.end(&report)?;
    Ok(report)
}

fn micros(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// What to know of a plugin whose mounts this process may not see.
fn elsewhere(plugin: Option<u32>) -> Option<String> {
    let pid = plugin?;
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    // A process that cannot be looked at tells nothing.
    let differs = of("self").ok()? != of(&pid.to_string()).ok()?;
    differs.then(|| {
        format!(
            "the plugin (process {pid}) is in another mount namespace: unless `folder` in --params is shared by both, what \
             it mounts is not seen here and the cases about that fail; run this in its own: nsenter --target {pid} --mount"
        )
    })
}

async fn begin_with(options: &Options, log: std::path::PathBuf) -> Result<Kit, CannotRun> {
    if options.start.is_some() && std::os::unix::net::UnixStream::connect(options.endpoint.path()).is_ok() {
        return Err(CannotRun::Running(options.endpoint.clone()));
    }
    let started = match &options.start {
        Some(command) => Some(Started::new(command, &options.endpoint, log)?),
        None => None,
    };
    let plugin = match &started {
        Some(started) => started.connect().await.map_err(|error| CannotRun::Started(error, started.last_words()))?,
        None => connect(&options.endpoint).await?,
    };
    Ok(Kit::new(plugin, options.params.clone(), started, options.seed)?)
}

/// Connects, and waits a while until the plugin says that it is ready; `identity/probe` tells of one that never does.
async fn connect(endpoint: &Endpoint) -> crate::client::Result<Plugin> {
    let start = Instant::now();
    let plugin = Plugin::connect(endpoint, STARTING / 6).await?;
    while start.elapsed() < STARTING / 6 && matches!(plugin.probe().await, Ok(false)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(plugin)
}

/// How volumes can be used: what the plugin does not refuse.
///
/// # Errors
/// Where the parameters name a kind that it refuses.
async fn find_kinds(kit: &Kit) -> Result<Vec<Kind>, CannotRun> {
    let given = &kit.params().access;
    if !kit.plugin().offers().creates() {
        return Ok(if given.is_empty() { vec![Kind::Mount] } else { given.clone() });
    }
    let mut kinds = Vec::new();
    for kind in [Kind::Mount, Kind::Block] {
        if !given.is_empty() && !given.contains(&kind) {
            continue;
        }
        let made = kit.send(kit.request_for("kind", kind)).await;
        let _told_by_the_cases = kit.undo_all().await;
        match made {
            // Only a clear refusal means that the plugin has no such volumes: what else fails is for the cases to tell.
            Err(status) if status.code() == Code::InvalidArgument => {
                if !given.is_empty() {
                    return Err(CannotRun::Access(kind, status.message().to_owned()));
                }
            }
            _ => kinds.push(kind),
        }
    }
    Ok(kinds)
}

async fn one(kit: &Kit, case: &Case, endpoint: &Endpoint, interrupt: &Interrupt) -> Outcome {
    let begin = Instant::now();
    let dead = kit.is_dead().then(|| "the plugin is gone".to_owned());
    let checked = match dead.or_else(|| case.lack(kit)) {
        Some(reason) => Err(Stop::Skipped(reason)),
        None => tokio::select! {
            checked = (case.run)(kit) => checked,
            () = interrupt.raised() => Err(Stop::Skipped("interrupted".to_owned())),
        },
    };
    let crashed = if kit.is_dead() { None } else { crashed(kit, endpoint).await };
    let left = if kit.is_dead() { Vec::new() } else { kit.undo_all().await };
    let verdict = match crashed {
        Some(failure) => Verdict::Failed(failure),
        None => verdict(case, checked, &left),
    };
    Outcome { name: case.name, section: case.section, strength: case.strength, verdict, micros: micros(begin) }
}

/// Whether the plugin ended by itself in the case. One that the kit has started is started again, for the next one.
async fn crashed(kit: &Kit, endpoint: &Endpoint) -> Option<Failure> {
    let Some(started) = kit.started() else {
        let gone = std::os::unix::net::UnixStream::connect(endpoint.path()).is_err();
        return gone.then(|| {
            kit.set_dead();
            let wants = "a plugin that goes on serving, whatever it is sent".to_owned();
            let came = "the plugin does not answer any more".to_owned();
            Failure { sent: format!("the last call: {}", kit.last_call()), came, wants }
        });
    };
    if !started.ends(&kit.plugin()).await {
        return None;
    }
    let came = format!("the plugin ended by itself; it printed: {}", started.last_words());
    match started.restart().await {
        Ok(plugin) => kit.replace_plugin(plugin),
        Err(_) => kit.set_dead(),
    }
    let wants = "a plugin that goes on serving, whatever it is sent".to_owned();
    Some(Failure { sent: format!("the last call: {}", kit.last_call()), came, wants })
}

fn verdict(case: &Case, checked: Checked, left: &[String]) -> Verdict {
    match checked {
        Ok(()) | Err(Stop::Skipped(_)) if !left.is_empty() => Verdict::Failed(Failure {
            sent: "the calls that take back what the case made".to_owned(),
            came: left.join("; "),
            wants: "that all of it can be taken back".to_owned(),
        }),
        Ok(()) => Verdict::Passed,
        Err(Stop::Skipped(reason)) => Verdict::Skipped { reason },
        Err(Stop::Failed(failure)) => match case.strength {
            Strength::Must => Verdict::Failed(failure),
            Strength::Should => Verdict::Warned(failure),
        },
    }
}
