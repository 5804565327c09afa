//! What the host adds to the metrics, read at each scrape from memory.

use dunnage_driver_api::{CopyProgress, Total};

use super::backend::Slot;
use crate::operations::Operations;
use crate::telemetry::{Metrics, Sample};

pub(super) fn register(metrics: &Metrics, operations: &Operations, slots: &[Slot]) {
    let table = operations.clone();
    metrics.gauge("operations_running", "Operations that are running.", move || {
        vec![Sample::new(table.count().running as f64)]
    });
    let table = operations.clone();
    metrics.counter("operations_joined", "Calls that waited for the same call before them.", move || {
        vec![Sample::new(table.count().joined as f64)]
    });
    let table = operations.clone();
    metrics.counter("operations_busy", "Calls that were told that another one holds the volume.", move || {
        vec![Sample::new(table.count().busy as f64)]
    });
    volumes(metrics, slots);
    copies(metrics, slots);
    let refusing = slots.to_vec();
    metrics.counter(
        "backend_refused",
        "Calls that were refused, since threads of their backend are stuck.",
        move || {
            let all = refusing.iter().map(|slot| &slot.configured);
            all.map(|one| Sample::new(one.workers.count().refused as f64).with("backend", one.name.as_str())).collect()
        },
    );
    let slots = slots.to_vec();
    metrics.gauge("backend_threads", "Threads of a backend: at work or idle, stuck, and calls that wait.", move || {
        let of = |slot: &Slot| {
            let backend = &slot.configured;
            let count = backend.workers.count();
            [("live", count.live), ("stuck", count.stuck), ("queued", count.queued)].map(|(state, number)| {
                Sample::new(number as f64).with("backend", backend.name.as_str()).with("state", state)
            })
        };
        slots.iter().flat_map(of).collect()
    });
}

fn volumes(metrics: &Metrics, slots: &[Slot]) {
    let of = |slots: &[Slot], value: fn(Total) -> u64| {
        let slots = slots.to_vec();
        move || {
            let sample = |slot: &Slot| {
                let total = slot.total()?;
                Some(Sample::new(value(total) as f64).with("backend", slot.config.name.as_str()))
            };
            slots.iter().filter_map(sample).collect()
        }
    };
    metrics.gauge("volumes", "Volumes of a backend.", of(slots, |total| total.volumes));
    metrics.gauge(
        "volumes_bytes",
        "The sizes of the volumes of a backend, added up.",
        of(slots, |total| total.capacity.get()),
    );
}

/// What is copied in the background.
fn copies(metrics: &Metrics, slots: &[Slot]) {
    let of = |slots: &[Slot], value: fn(&CopyProgress) -> u64| {
        let slots = slots.to_vec();
        move || {
            let samples = |slot: &Slot| {
                let copies = slot.open()?.backend.copying.as_ref()?.copies();
                let sample = |kind: &'static str| {
                    let sum: u64 = copies.iter().filter(|copy| copy.target.kind() == kind).map(value).sum();
                    Sample::new(sum as f64).with("backend", slot.config.name.as_str()).with("kind", kind)
                };
                Some(["snapshot", "volume"].map(sample))
            };
            slots.iter().filter_map(samples).flatten().collect()
        }
    };
    metrics.gauge("copies", "Snapshots and volumes that are copied in the background.", of(slots, |_| 1));
    metrics.gauge("copies_bytes", "What there is to copy of them.", of(slots, |copy| copy.total.get()));
    metrics.gauge("copies_done_bytes", "What of that is done.", of(slots, |copy| copy.done.get()));
    let slots = slots.to_vec();
    metrics.counter("copies_failed", "Attempts to copy that failed.", move || {
        let sample = |slot: &Slot| {
            let failed = slot.open()?.backend.copying.as_ref()?.failed_attempts();
            Some(Sample::new(failed as f64).with("backend", slot.config.name.as_str()))
        };
        slots.iter().filter_map(sample).collect()
    });
}
