//! The report as a drawing: rates by workers, and where the time of each call lies.

use crate::bench::svg::{Anchor, Svg};
use crate::bench::{CallReport, PhaseReport, Report};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 70.0;
const ROW: f64 = 22.0;
const GAP: f64 = 34.0;

/// The report as an SVG file, readable on light and on dark pages.
pub fn plot(report: &Report) -> String {
    let mut drawing = Drawing { svg: Svg::default(), y: 36.0 };
    let title = report.sides.iter().map(|side| side.name.as_str()).collect::<Vec<_>>().join(" and ");
    drawing.svg.text((20.0, drawing.y), "title", Anchor::Start, &format!("{title}: {}", report.access));
    drawing.y += 14.0;
    drawing.legend(report);
    drawing.rates(report);
    let mut seen: Vec<(&str, usize)> = Vec::new();
    for phase in &report.phases {
        let group = (phase.what.as_str(), phase.workers);
        if !seen.contains(&group) {
            seen.push(group);
            drawing.latencies(report, group);
        }
    }
    let height = drawing.y + 10.0;
    drawing.svg.finish(WIDTH, height, &title)
}

struct Drawing {
    svg: Svg,
    y: f64,
}

/// The classes of a plugin: the bar or dot, and the range.
fn classes(side: usize) -> (&'static str, &'static str) {
    if side == 0 { ("fill0", "line0") } else { ("fill1", "line1") }
}

impl Drawing {
    fn legend(&mut self, report: &Report) {
        for (number, side) in report.sides.iter().enumerate() {
            self.y += 18.0;
            self.svg.dot((26.0, self.y - 4.0), 5.0, classes(number).0, &side.name);
            self.svg.text((40.0, self.y), "dim", Anchor::Start, &format!("{} {}", side.name, side.version));
        }
        self.y += GAP;
    }

    fn rates(&mut self, report: &Report) {
        self.svg.text((20.0, self.y), "title", Anchor::Start, "Per second (more is better)");
        self.y += 10.0;
        let most = report.phases.iter().map(|phase| phase.per_second).fold(f64::MIN_POSITIVE, f64::max);
        for phase in &report.phases {
            let width = phase.per_second / most * (WIDTH - LEFT - RIGHT);
            let label = format!("{}, {} at once", phase.what, phase.workers);
            let rate = format!("{:.1}", phase.per_second);
            let middle = self.y + ROW * 0.7;
            self.svg.text((LEFT - 10.0, middle), "ink", Anchor::End, &label);
            self.svg.rect((LEFT, self.y + 3.0), (width.max(1.0), ROW - 6.0), classes(phase.side).0, &rate);
            self.svg.text((LEFT + width + 6.0, middle), "dim", Anchor::Start, &rate);
            self.y += ROW;
        }
        self.y += GAP;
    }

    fn latencies(&mut self, report: &Report, (what, workers): (&str, usize)) {
        let phases: Vec<&PhaseReport> =
            report.phases.iter().filter(|phase| phase.what == what && phase.workers == workers).collect();
        let Some(scale) = Scale::of(&phases) else { return };
        let heading = format!("Milliseconds of a call: {what}, {workers} at once (p50, p90, line to p99, tick at max)");
        self.svg.text((20.0, self.y), "title", Anchor::Start, &heading);
        self.y += 12.0;
        let mut calls: Vec<&str> = Vec::new();
        for call in phases.iter().flat_map(|phase| &phase.calls) {
            if !calls.contains(&call.call.as_str()) {
                calls.push(&call.call);
            }
        }
        let bottom = self.y + ROW * calls.len() as f64;
        for decade in scale.decades() {
            let x = scale.x(decade);
            self.svg.line((x, self.y), (x, bottom + 4.0), "rule");
            self.svg.text((x, bottom + 18.0), "dim", Anchor::Middle, &format!("{decade}"));
        }
        for call in calls {
            self.svg.text((LEFT - 10.0, self.y + ROW * 0.7), "ink", Anchor::End, call);
            for phase in &phases {
                if let Some(times) = phase.calls.iter().find(|times| times.call == call) {
                    let offset = if phases.len() == 1 { 0.5 } else { 0.3 + 0.4 * phase.side as f64 };
                    self.range(&scale, self.y + ROW * offset, phase.side, times);
                }
            }
            self.y += ROW;
        }
        self.y += GAP + 14.0;
    }

    fn range(&mut self, scale: &Scale, y: f64, side: usize, times: &CallReport) {
        let (fill, line) = classes(side);
        let title = format!(
            "{}: p50 {:.3}, p90 {:.3}, p99 {:.3}, max {:.3} ms",
            times.call, times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms
        );
        self.svg.line((scale.x(times.p50_ms), y), (scale.x(times.p99_ms), y), line);
        self.svg.dot((scale.x(times.p90_ms), y), 2.5, fill, &title);
        self.svg.dot((scale.x(times.p50_ms), y), 4.5, fill, &title);
        self.svg.rect((scale.x(times.max_ms) - 1.0, y - 5.0), (2.0, 10.0), fill, &title);
    }
}

/// Times on a logarithmic axis, in whole decades.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(phases: &[&PhaseReport]) -> Option<Self> {
        let calls = || phases.iter().flat_map(|phase| &phase.calls).filter(|call| call.p50_ms > 0.0);
        let low = calls().map(|call| call.p50_ms).reduce(f64::min)?;
        let high = calls().map(|call| call.max_ms).reduce(f64::max)?;
        let low = low.log10().floor() as i32;
        Some(Self { low, high: (high.log10().ceil() as i32).max(low + 1) })
    }

    fn x(&self, millis: f64) -> f64 {
        let share = (millis.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::SideReport;

    fn report(calls: Vec<CallReport>) -> Report {
        let phase = |side| PhaseReport {
            side,
            what: "lives".to_owned(),
            workers: 8,
            done: 1,
            failures: 0,
            messages: Vec::new(),
            seconds: 1.0,
            per_second: 10.0,
            rss_before: None,
            rss_after: None,
            rss_peak: None,
            cpu_seconds: None,
            calls: calls.clone(),
        };
        let side = |name: &str| SideReport {
            endpoint: String::new(),
            name: name.to_owned(),
            version: "<&>".to_owned(),
            pid: None,
        };
        Report {
            sides: vec![side("a.example.com"), side("b.example.com")],
            size: 1,
            access: "block".to_owned(),
            fill: 0,
            interrupted: false,
            phases: vec![phase(0), phase(1)],
            ratios: Vec::new(),
        }
    }

    #[test]
    fn the_plot_is_well_formed_with_and_without_times() {
        let times = CallReport {
            call: "CreateVolume".to_owned(),
            count: 1,
            p50_ms: 0.5,
            p90_ms: 0.75,
            p99_ms: 20.0,
            max_ms: 120.0,
        };
        for calls in [vec![], vec![times]] {
            let svg = plot(&report(calls));
            roxmltree::Document::parse(&svg).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_slower_call_lies_further_right() {
        let scale = Scale { low: -1, high: 2 };
        assert!(scale.x(0.1) < scale.x(1.0) && scale.x(1.0) < scale.x(99.0));
        assert_eq!(scale.x(0.1), LEFT);
        assert_eq!(scale.decades().count(), 4);
    }
}
