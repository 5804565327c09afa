//! What became of the tests that ran here, and what they covered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::listing::Cell;
use crate::session::Session;

/// Tells tests in which file to note what they cover.
pub(crate) const VARIABLE: &str = "DUNNAGE_COVERED";
const FILE: &str = "covered.txt";

/// How a test ended, and what it covered by then.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    passed: bool,
    covered: BTreeSet<Cell>,
}

/// The tests that ran, by the name of their binary and their own.
#[derive(Debug, Default)]
pub(crate) struct Results {
    tests: BTreeMap<String, Ran>,
    output: Output,
}

/// What was seen of the output of one test binary.
#[derive(Debug, Default)]
struct Output {
    binary: String,
    begun: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Results {
    /// Those of all runs here, each test as it ran last.
    pub(crate) fn kept(session: &Session) -> Result<Self> {
        match fs::read_to_string(session.target.join(FILE)) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("cannot read what tests covered"),
        }
    }

    /// Keeps these, in the place of what is kept of the same tests.
    pub(crate) fn keep(self, session: &Session) -> Result<()> {
        let mut all = Self::kept(session)?;
        all.tests.extend(self.tests);
        fs::write(session.target.join(FILE), all.text()).context("cannot keep what tests covered")
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut results = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("noted", note)) => results.noted(note)?,
                Some((result @ ("passed" | "failed"), test)) => results.ended(test.to_owned(), result == "passed"),
                _ => bail!("what tests covered is damaged: {line:?}"),
            }
        }
        Ok(results)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (test, Ran { passed, covered }) in &self.tests {
            text.push_str(&format!("{} {test}\n", if *passed { "passed" } else { "failed" }));
            covered.iter().for_each(|cell| text.push_str(&format!("noted {test} {cell}\n")));
        }
        text
    }

    /// An empty file for the notes of a run.
    pub(crate) fn notes(session: &Session) -> Result<PathBuf> {
        let path = session.target.join("covered-notes.txt");
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// What comes now is of this test binary.
    pub(crate) fn begin(&mut self, program: &Path) {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Cargo adds a hash.
        let binary = name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned());
        self.output = Output { binary, ..Output::default() };
    }

    /// A line of Cargo's or libtest's output. How tests ended is known at the end of their binary alone: what other
    /// programs write may come between the name of a test and its result.
    pub(crate) fn see(&mut self, line: &str) {
        if let Some((_, program)) = line.trim_start().strip_prefix("Running ").and_then(|rest| rest.rsplit_once(" (")) {
            self.begin(Path::new(program.trim_end_matches(')')));
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            if result.ends_with("FAILED") {
                self.output.failed.insert(name.to_owned());
            }
            if !result.starts_with("ignored") {
                self.output.begun.insert(name.to_owned());
            }
        } else if let Some(name) = line.strip_prefix("    ").filter(|name| self.output.begun.contains(*name)) {
            // Of the list of failures.
            self.output.failed.insert(name.to_owned());
        } else if line.starts_with("test result: ") {
            let Output { binary, begun, failed } = std::mem::take(&mut self.output);
            begun.into_iter().for_each(|name| self.ended(format!("{binary} {name}"), !failed.contains(&name)));
        }
    }

    fn ended(&mut self, test: String, passed: bool) {
        self.tests.insert(test, Ran { passed, ..Ran::default() });
    }

    /// What tests have noted. Of one that has not passed nothing counts.
    ///
    /// # Errors
    /// A note cannot be read, or is of no test.
    pub(crate) fn noted(&mut self, notes: &str) -> Result<()> {
        for note in notes.lines() {
            let words: Vec<_> = note.split(' ').collect();
            let [binary, name, cell @ ..] = &words[..] else { bail!("a note of what a test covers is cut: {note:?}") };
            if ["?", "main"].contains(name) {
                bail!("{binary} notes what it covers from a thread that is no test's own: {note:?}");
            }
            let cell: Cell = cell.join(" ").parse()?;
            if let Some(ran) = self.tests.get_mut(&format!("{binary} {name}")).filter(|ran| ran.passed) {
                ran.covered.insert(cell);
            }
        }
        Ok(())
    }

    pub(super) fn ran(&self, test: &str) -> bool {
        self.tests.contains_key(test)
    }

    pub(super) fn covered(&self, test: &str) -> impl Iterator<Item = &Cell> {
        self.tests.get(test).into_iter().flat_map(|ran| &ran.covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running tests/lvm/main.rs (target/debug/deps/lvm-0a1b)
running 4 tests
test a::passes ... ok
test a::fails ... FAILED
test a::fails_unseen ... SKIPPED: something else
FAILED
test a::is_ignored ... ignored

failures:
    a::fails
    a::fails_unseen

test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running unittests src/lib.rs (target/debug/deps/dunnage-0a1b)
test b::is_cut_off ... ok
";

    #[test]
    fn what_a_test_noted_counts_once_it_has_passed() {
        let mut results = Results::default();
        OUTPUT.lines().for_each(|line| results.see(line));
        let tests =
            ["lvm a::passes", "lvm a::fails", "lvm a::fails_unseen", "lvm a::is_ignored", "dunnage b::is_cut_off"];
        let notes = tests.map(|test| format!("{test} dir CreateVolume Killed\n")).concat();
        results.noted(&notes).unwrap();
        assert_eq!(tests.map(|test| results.ran(test)), [true, true, true, false, false]);
        assert_eq!(tests.map(|test| results.covered(test).count()), [1, 0, 0, 0, 0]);
        let kept = Results::parse(&results.text()).unwrap();
        assert_eq!(kept.tests, results.tests);
    }

    #[test]
    fn a_note_of_no_test_is_an_error() {
        for note in
            ["lvm main dir CreateVolume Killed", "lvm ? dir CreateVolume Killed", "lvm a::passes dir CreateVolume"]
        {
            assert!(Results::default().noted(note).is_err(), "{note}");
        }
    }
}
