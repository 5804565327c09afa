//! How a run looks to a person.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{Failure, Outcome, Report, Show, Verdict};

/// How wide the column of names is.
const NAME: usize = 48;

/// A line for each case, and what is wrong below it.
#[derive(Debug)]
pub struct Human<W>(pub W);

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();
const DIM: Style = Style::new().dimmed();

impl<W: Write> Human<W> {
    fn failure(&mut self, failure: &Failure, outcome: &Outcome, style: Style) -> io::Result<()> {
        writeln!(self.0, "      {DIM}sent{DIM:#}   {}", failure.sent)?;
        writeln!(self.0, "      {DIM}came{DIM:#}   {}", failure.came)?;
        writeln!(self.0, "      {style}wants{style:#}  {} ({:?})", failure.wants, outcome.section)
    }
}

impl<W: Write> Show for Human<W> {
    fn start(&mut self, plugin: &str, cases: usize, notes: &[String]) -> io::Result<()> {
        writeln!(self.0, "{plugin}: {cases} rules of CSI 1.13\n")?;
        for note in notes {
            writeln!(self.0, "{YELLOW}Note: {note}.{YELLOW:#}\n")?;
        }
        self.0.flush()
    }

    fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        let Outcome { name, section, .. } = outcome;
        let time = format!("{:>7.1} ms", outcome.micros as f64 / 1e3);
        match &outcome.verdict {
            Verdict::Passed => {
                writeln!(self.0, "  {GREEN}✓{GREEN:#} {name:<NAME$} {DIM}{time}  {section}{DIM:#}")?;
            }
            Verdict::Skipped { reason } => writeln!(self.0, "  {DIM}- {name:<NAME$} skipped: {reason}{DIM:#}")?,
            Verdict::Warned(failure) => {
                writeln!(self.0, "  {YELLOW}!{YELLOW:#} {name:<NAME$} {DIM}{time}  {section}{DIM:#}")?;
                self.failure(failure, outcome, YELLOW)?;
            }
            Verdict::Failed(failure) => {
                writeln!(self.0, "  {RED}✗{RED:#} {name:<NAME$} {DIM}{time}  {section}{DIM:#}")?;
                self.failure(failure, outcome, RED)?;
            }
        }
        self.0.flush()
    }

    fn end(&mut self, report: &Report) -> io::Result<()> {
        let Report { passed, failed, warned, skipped, .. } = report;
        let style = if *failed > 0 { RED } else { GREEN };
        let seconds = report.micros as f64 / 1e6;
        writeln!(
            self.0,
            "\n{style}{passed} passed, {failed} failed, {warned} warned, {skipped} skipped{style:#} in {seconds:.1} s"
        )?;
        if report.interrupted {
            writeln!(self.0, "{YELLOW}Interrupted; what was made has been taken back.{YELLOW:#}")?;
        }
        writeln!(self.0, "{DIM}seed {}{DIM:#}", report.seed)?;
        self.0.flush()
    }
}
