//! A measurement from its options to its report.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bench::phase::{Phase, share};
use crate::bench::report::{Report, SideReport, ratios};
use crate::bench::side::Side;
use crate::bench::work::{Kept, discard, keep, live, walk};
use crate::bench::{Mode, Options, PhaseReport};
use crate::client::{Access, Interrupt, Result};

/// Into how many turns the work of two plugins is cut, so that both meet the same moods of the machine.
const TURNS: usize = 5;

/// How many make and delete what is only there to be there.
const FILLERS: usize = 16;

/// Measures, and takes back all that it made, also after failures and an interrupt.
///
/// `progress` is told what is about to be measured.
///
/// # Errors
/// Where a plugin cannot be reached or makes no volumes. Calls that fail later are counted in the report.
pub async fn run(options: &Options, interrupt: &Interrupt, mut progress: impl FnMut(&str)) -> Result<Report> {
    let mut sides = Vec::new();
    for (number, endpoint) in std::iter::once(&options.endpoint).chain(&options.against).enumerate() {
        sides.push(Arc::new(Side::open(options, endpoint, number).await?));
    }
    let mut phases = Vec::new();
    let mut filled = Vec::new();
    for (number, side) in sides.iter().enumerate().filter(|_| options.fill > 0) {
        progress(&format!("{} volumes are made in {}", options.fill, side.plugin.offers().name));
        let (phase, kept) = make(side, "fill", (FILLERS, options.fill), interrupt).await;
        phases.push(PhaseReport::new(number, "fill", FILLERS, phase));
        filled.push((side, kept));
    }
    for workers in &options.workers {
        if !interrupt.is_raised() {
            progress(&format!("{workers} worker{}", if *workers == 1 { "" } else { "s" }));
            phases.extend(measure(options, &sides, *workers, interrupt).await);
        }
    }
    for (number, (side, kept)) in filled.into_iter().enumerate() {
        progress(&format!("{} volumes are deleted from {}", kept.len(), side.plugin.offers().name));
        phases.push(PhaseReport::new(number, "empty", FILLERS, unmake(side, "fill", FILLERS, kept).await));
    }
    Ok(Report {
        sides: sides.iter().map(|side| describe(side)).collect(),
        size: options.size,
        access: match &options.access {
            Access::Block => "block".to_owned(),
            Access::Mount(fs_type) => format!("mount {fs_type}").trim_end().to_owned(),
        },
        fill: options.fill,
        interrupted: interrupt.is_raised(),
        ratios: ratios(&phases),
        phases,
    })
}

fn describe(side: &Side) -> SideReport {
    let offers = side.plugin.offers();
    SideReport {
        endpoint: side.endpoint.to_string(),
        name: offers.name.clone(),
        version: offers.version.clone(),
        pid: side.pid,
    }
}

/// One number of workers on each plugin, in turns where there are two.
async fn measure(options: &Options, sides: &[Arc<Side>], workers: usize, interrupt: &Interrupt) -> Vec<PhaseReport> {
    let turns = if sides.len() > 1 { TURNS.min(options.lives.max(1)) } else { 1 };
    let mut sums: Vec<Vec<(&str, Phase)>> = sides.iter().map(|_| Vec::new()).collect();
    for turn in 0..turns {
        let count = options.lives * (turn + 1) / turns - options.lives * turn / turns;
        for (side, sum) in sides.iter().zip(&mut sums) {
            for (what, phase) in turn_of(side, options.mode, (workers, count), interrupt).await {
                match sum.iter_mut().find(|(known, _)| *known == what) {
                    Some((_, earlier)) => earlier.merge(phase),
                    None => sum.push((what, phase)),
                }
            }
        }
    }
    let numbered = sums.into_iter().enumerate();
    numbered
        .flat_map(|(side, sum)| sum.into_iter().map(move |(what, phase)| PhaseReport::new(side, what, workers, phase)))
        .collect()
}

async fn turn_of(
    side: &Arc<Side>,
    mode: Mode,
    share_of: (usize, usize),
    interrupt: &Interrupt,
) -> Vec<(&'static str, Phase)> {
    match mode {
        Mode::Creates => {
            let (created, kept) = make(side, "kept", share_of, interrupt).await;
            vec![("creates", created), ("deletes", unmake(side, "kept", share_of.0, kept).await)]
        }
        Mode::Lives => {
            let shared = Arc::clone(side);
            let piece = move |number, mut samples| {
                let side = Arc::clone(&shared);
                async move { (live(&side, number, &mut samples).await, samples) }
            };
            vec![("lives", share(share_of, side.pid, interrupt, piece).await)]
        }
        Mode::Lists => {
            let shared = Arc::clone(side);
            let piece = move |_, mut samples| {
                let side = Arc::clone(&shared);
                async move { (walk(&side, &mut samples).await, samples) }
            };
            vec![("lists", share(share_of, side.pid, interrupt, piece).await)]
        }
    }
}

/// Creates that are kept.
async fn make(
    side: &Arc<Side>,
    part: &'static str,
    share_of: (usize, usize),
    interrupt: &Interrupt,
) -> (Phase, Vec<Kept>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (shared, keeper) = (Arc::clone(side), Arc::clone(&kept));
    let phase = share(share_of, side.pid, interrupt, move |number, mut samples| {
        let (side, keeper) = (Arc::clone(&shared), Arc::clone(&keeper));
        async move {
            let before = samples.failures();
            let one = keep(&side, part, number, &mut samples).await;
            keeper.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            (samples.failures() == before, samples)
        }
    });
    let phase = phase.await;
    let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
    (phase, kept)
}

/// Their deletes, which an interrupt does not stop.
async fn unmake(side: &Arc<Side>, part: &'static str, workers: usize, kept: Vec<Kept>) -> Phase {
    let count = kept.len();
    let kept = Arc::new(Mutex::new(kept));
    let shared = Arc::clone(side);
    let (_raise, never) = Interrupt::by_hand();
    share((workers, count), side.pid, &never, move |_, mut samples| {
        let (side, next) = (Arc::clone(&shared), kept.lock().unwrap_or_else(PoisonError::into_inner).pop());
        async move {
            let Some(next) = next else { return (false, samples) };
            (discard(&side, part, next, &mut samples).await, samples)
        }
    })
    .await
}
