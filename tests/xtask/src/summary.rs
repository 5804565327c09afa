//! What became of each step, and the line that counts all tests.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What a step has to say. A step that runs no tests counts as one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// Names of what failed, reasons of what was skipped, figures worth a line.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    pub(crate) fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<(&'static str, Duration, Outcome)>,
}

impl Summary {
    /// Runs a step and keeps what became of it.
    pub(crate) fn add(&mut self, name: &'static str, step: impl FnOnce() -> Result<Outcome>) {
        let started = Instant::now();
        let outcome = step().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Outcome { failed: 1, ..Outcome::default() }.note(format!("{error:#}"))
        });
        self.rows.push((name, started.elapsed(), outcome));
    }

    pub(crate) fn failed(&self) -> bool {
        self.rows.iter().any(|(_, _, outcome)| outcome.failed > 0)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut sum = Outcome::default();
        writeln!(f, "{:12} {:7} {:>8} {:>7} {:>7} {:>7}", "step", "result", "time", "passed", "failed", "skipped")?;
        for (name, time, Outcome { passed, failed, skipped, notes }) in &self.rows {
            let result = if *failed > 0 { "FAILED" } else { "ok" };
            let time = format!("{:.1} s", time.as_secs_f64());
            writeln!(f, "{name:12} {result:7} {time:>8} {passed:7} {failed:7} {skipped:7}")?;
            for note in notes {
                writeln!(f, "    {}", note.trim_end().replace('\n', "\n    "))?;
            }
            sum.passed += passed;
            sum.failed += failed;
            sum.skipped += skipped;
        }
        write!(f, "{} passed, {} failed", sum.passed, sum.failed)?;
        if sum.skipped > 0 {
            write!(f, ", {} skipped", sum.skipped)?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_the_tests_of_all_steps() {
        let mut summary = Summary::default();
        summary.add("fmt", || Ok(Outcome::passed()));
        summary.add("test", || Ok(Outcome { passed: 7, failed: 2, ..Outcome::default() }));
        assert_eq!(summary.to_string().lines().last(), Some("8 passed, 2 failed"));
        summary.add("deny", || Ok(Outcome { passed: 1, skipped: 1, ..Outcome::default() }.note("no network")));
        assert_eq!(summary.to_string().lines().last(), Some("9 passed, 2 failed, 1 skipped"));
    }

    #[test]
    fn a_step_that_ends_with_an_error_counts_as_failed_and_is_named() {
        let mut summary = Summary::default();
        summary.add("clippy", || anyhow::bail!("a lint"));
        assert!(summary.failed());
        let text = summary.to_string();
        assert!(text.contains("clippy       FAILED") && text.contains("a lint"), "{text}");
        assert!(text.ends_with("0 passed, 1 failed\n"), "{text}");
    }
}
