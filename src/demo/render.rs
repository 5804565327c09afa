//! How a demo looks: to a person, and to a program.

use std::io::{self, Write};
use std::time::Duration;

use crate::demo::{Event, Show};

/// How wide the column of calls is: the longest name of a call in it has 25 letters.
const CALL: usize = 26;

/// How wide the column of what came of them is.
const TEXT: usize = 60;

/// One object a line.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write> Show for Lines<W> {
    fn show(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        writeln!(self.0)?;
        self.0.flush()
    }
}

/// Aligned lines, in colour where that is wanted.
#[derive(Debug)]
pub struct Human<W> {
    to: W,
    colour: bool,
}

/// The few looks there are, as SGR parameters.
const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

impl<W: Write> Human<W> {
    /// Writes to `to`; `colour` is for a terminal whose user has not set `NO_COLOR`.
    pub fn new(to: W, colour: bool) -> Self {
        Self { to, colour }
    }

    fn paint(&self, look: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{look}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn start(
        &mut self,
        (version, footing, folder): (&str, &str, &str),
        drivers: &[String],
        without: Option<&str>,
    ) -> io::Result<()> {
        let name = self.paint(BOLD, &format!("dunnage {version}"));
        writeln!(self.to, "{name}: the host in this process, its drivers {}, no cluster", drivers.join(" and "))?;
        writeln!(self.to, "{}", self.paint(DIM, &format!("  {footing}; everything lies in {folder}")))?;
        match without {
            Some(reason) => writeln!(self.to, "{}", self.paint(YELLOW, &format!("  left out: {reason}"))),
            None => Ok(()),
        }
    }

    fn step(
        &mut self,
        (call, text, ok): (&str, &str, bool),
        micros: u64,
        said: Option<&str>,
        expected: Option<&str>,
    ) -> io::Result<()> {
        let mark = if ok { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
        let time = self.paint(DIM, &format!("{:>8}", duration(micros)));
        let mut lines = wrap(text, TEXT).into_iter();
        writeln!(self.to, "  {mark} {call:<CALL$}{:<TEXT$} {time}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(self.to, "    {:CALL$}{line}", "")?;
        }
        for line in said.iter().flat_map(|said| wrap(said, TEXT + 4)) {
            writeln!(self.to, "    {:CALL$}{}", "", self.paint(DIM, &format!("\u{2502} {line}")))?;
        }
        match expected {
            Some(expected) => {
                writeln!(self.to, "    {:CALL$}{}", "", self.paint(RED, &format!("expected: {expected}")))
            }
            None => Ok(()),
        }
    }

    fn end(
        &mut self,
        (steps, failed, interrupted): (usize, usize, bool),
        micros: u64,
        kept: Option<&str>,
    ) -> io::Result<()> {
        let took = duration(micros);
        let summary = match (failed, interrupted) {
            (0, false) => self.paint(GREEN, &format!("{steps} steps in {took}, all as expected.")),
            (0, true) => {
                self.paint(YELLOW, &format!("Interrupted after {steps} steps; what was made has been taken back."))
            }
            _ => self.paint(RED, &format!("{failed} of {steps} steps failed, in {took}.")),
        };
        writeln!(self.to, "\n{summary}")?;
        match kept {
            Some(folder) => writeln!(self.to, "The configuration and the roots are kept in {folder}"),
            None => Ok(()),
        }
    }
}

impl<W: Write> Show for Human<W> {
    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Start { version, footing, folder, drivers, without } => {
                self.start((version, footing, folder), drivers, without.as_deref())?;
            }
            Event::Section { title, plugin } => {
                let title = self.paint(BOLD, title);
                let plugin = plugin.as_ref().map(|plugin| format!("  {}", self.paint(DIM, plugin))).unwrap_or_default();
                writeln!(self.to, "\n{title}{plugin}")?;
            }
            Event::Step { call, text, said, expected, ok, micros } => {
                self.step((call, text, *ok), *micros, said.as_deref(), expected.as_deref())?;
            }
            Event::End { steps, failed, interrupted, micros, kept } => {
                self.end((*steps, *failed, *interrupted), *micros, kept.as_deref())?;
            }
        }
        self.to.flush()
    }
}

/// A time with three digits that count.
fn duration(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", time.as_secs_f64() * 1e3),
        10_000..100_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        100_000..1_000_000 => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Lines of at most `width` letters, broken between words where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
