//! The report as a person reads it.

use std::fmt::Write as _;

use dunnage_driver_api::Bytes;

use crate::bench::{CallReport, PhaseReport, Ratio, Report, SideReport};

/// The report as text, aligned, without colours.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for (number, side) in report.sides.iter().enumerate() {
        text += &heading(report, side);
        let phases: Vec<&PhaseReport> = report.phases.iter().filter(|phase| phase.side == number).collect();
        text += &rates(&phases);
        for phase in phases {
            text += &calls(phase);
        }
    }
    text += &ratios(report);
    if report.interrupted {
        text += "interrupted: less was done than was asked for; what was made has been taken back\n";
    }
    text
}

fn heading(report: &Report, side: &SideReport) -> String {
    let size = Bytes::new(report.size.unsigned_abs());
    let fill = if report.fill > 0 { format!(", beside {} volumes", report.fill) } else { String::new() };
    format!("{} {} at {}: {size}, {}{fill}\n\n", side.name, side.version, side.endpoint, report.access)
}

fn rates(phases: &[&PhaseReport]) -> String {
    let mut text = format!(
        "  {:<8} {:>7} {:>8} {:>7} {:>10} {:>11} {:>10} {:>10} {:>8}\n",
        "what", "workers", "done", "failed", "per second", "RSS before", "peak", "after", "CPU"
    );
    for phase in phases {
        let _infallible = writeln!(
            text,
            "  {:<8} {:>7} {:>8} {:>7} {:>10.1} {:>11} {:>10} {:>10} {:>8}",
            phase.what,
            phase.workers,
            phase.done,
            phase.failures,
            phase.per_second,
            megabytes(phase.rss_before),
            megabytes(phase.rss_peak),
            megabytes(phase.rss_after),
            phase.cpu_seconds.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2} s")),
        );
    }
    text.push('\n');
    text
}

fn calls(phase: &PhaseReport) -> String {
    let mut text = format!(
        "  {:<34} {:>8} {:>9} {:>9} {:>9} {:>9}\n",
        format!("{}, {} at once (ms)", phase.what, phase.workers),
        "count",
        "p50",
        "p90",
        "p99",
        "max"
    );
    for CallReport { call, count, p50_ms, p90_ms, p99_ms, max_ms } in &phase.calls {
        let _infallible =
            writeln!(text, "    {call:<32} {count:>8} {p50_ms:>9.3} {p90_ms:>9.3} {p99_ms:>9.3} {max_ms:>9.3}");
    }
    for message in &phase.messages {
        let _infallible = writeln!(text, "    failed: {message}");
    }
    text.push('\n');
    text
}

fn ratios(report: &Report) -> String {
    let [first, second] = report.sides.as_slice() else { return String::new() };
    let mut text = format!("{} over {}\n\n", first.name, second.name);
    let _infallible =
        writeln!(text, "  {:<8} {:>7} {:>8} {:>9} {:>9}", "what", "workers", "rate", "RSS peak", "CPU each");
    let or_unknown = |ratio: Option<f64>| ratio.map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.2}"));
    for Ratio { what, workers, rate, rss_peak, cpu } in &report.ratios {
        let _infallible =
            writeln!(text, "  {what:<8} {workers:>7} {rate:>8.2} {:>9} {:>9}", or_unknown(*rss_peak), or_unknown(*cpu));
    }
    text
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report;

    #[test]
    fn a_report_reads_as_aligned_tables() {
        let call = |call: &str| CallReport {
            call: call.to_owned(),
            count: 200,
            p50_ms: 1.25,
            p90_ms: 2.5,
            p99_ms: 10.125,
            max_ms: 99.0,
        };
        let phase = |side, per_second| PhaseReport {
            side,
            what: "lives".to_owned(),
            workers: 8,
            done: 200,
            failures: side,
            messages: if side == 1 { vec!["NodeStageVolume answered INTERNAL: no mkfs".to_owned()] } else { vec![] },
            seconds: 1.0,
            per_second,
            rss_before: Some(3_000_000),
            rss_after: Some(4_000_000),
            rss_peak: (side == 0).then_some(5_000_000),
            cpu_seconds: None,
            calls: vec![call("CreateVolume"), call("whole life")],
        };
        let side = |name: &str| SideReport {
            endpoint: "unix:///x.sock".to_owned(),
            name: name.to_owned(),
            version: "1.0".to_owned(),
            pid: None,
        };
        let phases = vec![phase(0, 300.0), phase(1, 200.0)];
        let report = Report {
            sides: vec![side("one.example.com"), side("two.example.com")],
            size: 64 << 20,
            access: "mount".to_owned(),
            fill: 0,
            interrupted: false,
            ratios: report::ratios(&phases),
            phases,
        };
        assert_eq!(table(&report), include_str!("table.golden.txt"));
    }
}
