//! Workers that share a piece of work, timed and watched.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::bench::Samples;
use crate::bench::process::{Peak, Usage};
use crate::client::Interrupt;

/// What the workers of a phase did.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    pub(crate) samples: Samples,
    /// How many pieces were done, whole and without a failure.
    pub(crate) done: usize,
    pub(crate) elapsed: Duration,
    pub(crate) memory: Option<Memory>,
}

/// What a plugin's process used meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) peak: u64,
    pub(crate) cpu: f64,
}

impl Phase {
    /// Adds a later turn of the same phase.
    pub(crate) fn merge(&mut self, later: Self) {
        self.samples.merge(later.samples);
        self.done += later.done;
        self.elapsed += later.elapsed;
        self.memory = match (self.memory, later.memory) {
            (Some(first), Some(last)) => Some(Memory {
                before: first.before,
                after: last.after,
                peak: first.peak.max(last.peak),
                cpu: first.cpu + last.cpu,
            }),
            (first, last) => first.or(last),
        };
    }
}

/// Lets `workers` tasks do the pieces `0..count`, each by `piece`, which says whether it was done. No piece is begun after
/// an interrupt.
pub(crate) async fn share<F, W>(
    (workers, count): (usize, usize),
    pid: Option<u32>,
    interrupt: &Interrupt,
    piece: F,
) -> Phase
where
    F: Fn(usize, Samples) -> W + Clone + Send + 'static,
    W: Future<Output = (bool, Samples)> + Send,
{
    let before = pid.and_then(Usage::of);
    let peak = before.and(pid).map(Peak::watch);
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..workers.min(count) {
        let (piece, next, interrupt) = (piece.clone(), Arc::clone(&next), interrupt.clone());
        tasks.spawn(async move {
            let (mut samples, mut done) = (Samples::default(), 0);
            while !interrupt.is_raised() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let (whole, measured) = piece(number, samples).await;
                samples = measured;
                done += usize::from(whole);
            }
            (done, samples)
        });
    }
    let mut phase = Phase::default();
    while let Some(ended) = tasks.join_next().await {
        if let Ok((done, samples)) = ended {
            phase.done += done;
            phase.samples.merge(samples);
        }
    }
    phase.elapsed = start.elapsed();
    let after = pid.and_then(Usage::of);
    phase.memory = before.zip(after).map(|(before, after)| Memory {
        before: before.rss,
        after: after.rss,
        peak: peak.map_or(0, Peak::end).max(before.rss).max(after.rss),
        cpu: after.cpu - before.cpu,
    });
    phase
}
