//! What was measured, as a program reads it.

use std::time::Duration;

use serde::Serialize;

use crate::bench::percentile;
use crate::bench::phase::Phase;

/// A plugin that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideReport {
    /// Its socket.
    pub endpoint: String,
    /// Its CSI name.
    pub name: String,
    /// The version its vendor gives.
    pub version: String,
    /// Its process, where that is known.
    pub pid: Option<u32>,
}

/// The times of one call, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallReport {
    /// The call, or what else was timed.
    pub call: String,
    /// How many of them succeeded.
    pub count: usize,
    /// The middle.
    pub p50_ms: f64,
    /// Nine in ten took at most this.
    pub p90_ms: f64,
    /// 99 in a hundred took at most this.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// One number of workers at one kind of work, on one plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Which of the plugins.
    pub side: usize,
    /// What was done: `lives`, `creates`, `deletes`, `lists`.
    pub what: String,
    /// How many did it at once.
    pub workers: usize,
    /// How many were done, whole and without a failure.
    pub done: usize,
    /// How many calls failed.
    pub failures: usize,
    /// The first few messages of these.
    pub messages: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Done in a second.
    pub per_second: f64,
    /// Resident bytes of the plugin's process before.
    pub rss_before: Option<u64>,
    /// After.
    pub rss_after: Option<u64>,
    /// The most that was seen meanwhile.
    pub rss_peak: Option<u64>,
    /// Seconds of CPU of the process and of its children.
    pub cpu_seconds: Option<f64>,
    /// Each call.
    pub calls: Vec<CallReport>,
}

/// The first plugin over the second one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// What was done.
    pub what: String,
    /// By how many at once.
    pub workers: usize,
    /// Rate over rate: above 1 the first plugin is faster.
    pub rate: f64,
    /// Peak of resident bytes over the same, where both are known: below 1 the first plugin is smaller.
    pub rss_peak: Option<f64>,
    /// CPU time for one piece of the work over the same.
    pub cpu: Option<f64>,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The plugins.
    pub sides: Vec<SideReport>,
    /// Bytes of a volume.
    pub size: i64,
    /// How volumes were used: `block`, or `mount` with the file system's type.
    pub access: String,
    /// How many volumes were there besides.
    pub fill: usize,
    /// Whether it was interrupted, so that less was done than was asked for.
    pub interrupted: bool,
    /// What was measured.
    pub phases: Vec<PhaseReport>,
    /// How two plugins compare.
    pub ratios: Vec<Ratio>,
}

impl Report {
    /// How many calls failed in all.
    pub fn failures(&self) -> usize {
        self.phases.iter().map(|phase| phase.failures).sum()
    }
}

impl PhaseReport {
    pub(crate) fn new(side: usize, what: &str, workers: usize, phase: Phase) -> Self {
        let seconds = phase.elapsed.as_secs_f64();
        let memory = phase.memory;
        Self {
            side,
            what: what.to_owned(),
            workers,
            done: phase.done,
            failures: phase.samples.failures(),
            messages: phase.samples.messages().map(str::to_owned).collect(),
            seconds,
            per_second: if seconds > 0.0 { phase.done as f64 / seconds } else { 0.0 },
            rss_before: memory.map(|memory| memory.before),
            rss_after: memory.map(|memory| memory.after),
            rss_peak: memory.map(|memory| memory.peak),
            cpu_seconds: memory.map(|memory| memory.cpu),
            calls: phase.samples.sorted().into_iter().map(|(call, times)| CallReport::new(call, &times)).collect(),
        }
    }

    fn cpu_each(&self) -> Option<f64> {
        self.cpu_seconds.filter(|_| self.done > 0).map(|cpu| cpu / self.done as f64)
    }
}

impl CallReport {
    fn new(call: &str, sorted: &[Duration]) -> Self {
        let at = |q| percentile(sorted, q).as_secs_f64() * 1000.0;
        Self {
            call: call.to_owned(),
            count: sorted.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }
}

/// The ratios of the phases that both plugins have.
pub(crate) fn ratios(phases: &[PhaseReport]) -> Vec<Ratio> {
    let over = |first: f64, second: f64| (second > 0.0).then(|| first / second);
    let pair = |first: &PhaseReport| {
        let same =
            |second: &&PhaseReport| second.side == 1 && second.what == first.what && second.workers == first.workers;
        let second = phases.iter().find(same)?;
        Some(Ratio {
            what: first.what.clone(),
            workers: first.workers,
            rate: over(first.per_second, second.per_second)?,
            rss_peak: first.rss_peak.zip(second.rss_peak).and_then(|(a, b)| over(a as f64, b as f64)),
            cpu: first.cpu_each().zip(second.cpu_each()).and_then(|(a, b)| over(a, b)),
        })
    };
    phases.iter().filter(|phase| phase.side == 0).filter_map(pair).collect()
}
