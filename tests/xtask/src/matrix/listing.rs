//! The lines under version control.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use anyhow::{Context, Error, Result};

use super::results::Results;

/// A call to a driver while something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) driver: String,
    pub(crate) rpc: String,
    pub(crate) fault: String,
}

/// A cell, and a test that covers it: the name of its binary and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) cell: Cell,
    pub(crate) test: String,
}

/// All lines, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(pub(crate) BTreeSet<Line>);

impl FromStr for Cell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let mut word = |what: &str| words.next().with_context(|| format!("no {what} in {text:?}"));
        Ok(Self { driver: word("driver")?, rpc: word("RPC")?, fault: word("fault")? })
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.driver, self.rpc, self.fault)
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cell, self.test)
    }
}

impl FromStr for Listing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let line = |line: &str| {
            let (at, _) = line.match_indices(' ').nth(2).with_context(|| format!("no test in {line:?}"))?;
            Ok(Line { cell: line[..at].parse()?, test: line[at + 1..].to_owned() })
        };
        text.lines().map(line).collect::<Result<_>>().map(Self)
    }
}

impl Display for Listing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Listing {
    /// This, with what ran in the place of what was said of it, and without tests that are not there.
    pub(crate) fn with(&self, results: &Results, there: &BTreeSet<String>) -> Self {
        let kept = self.0.iter().filter(|line| there.contains(&line.test) && !results.ran(&line.test)).cloned();
        let lines = |test: &String| -> Vec<_> {
            results.covered(test).map(|cell| Line { cell: cell.clone(), test: test.clone() }).collect()
        };
        Self(kept.chain(there.iter().flat_map(lines)).collect())
    }

    /// How many lines are of tests that ran.
    pub(crate) fn of(&self, results: &Results) -> usize {
        self.0.iter().filter(|line| results.ran(&line.test)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_here_replaces_what_was_listed_of_it_and_what_ran_elsewhere_stays() {
        let text = "dir CreateVolume Killed kit a\ndir DeleteVolume Killed kit a\nlvm CreateVolume Killed kit b\n\
                    nfs CreateVolume Killed kit gone\n";
        let old: Listing = text.parse().unwrap();
        assert_eq!(old.to_string(), text);
        let kept = "passed kit a\nnoted kit a dir CreateVolume DiskFull\npassed kit gone\n";
        let results = Results::parse(kept).unwrap();
        let there = BTreeSet::from(["kit a", "kit b"].map(str::to_owned));
        let new = old.with(&results, &there);
        assert_eq!(new.to_string(), "dir CreateVolume DiskFull kit a\nlvm CreateVolume Killed kit b\n");
        assert_eq!(new.of(&results), 1);
    }

    #[test]
    fn a_line_without_a_test_is_named() {
        assert!(format!("{:#}", "dir CreateVolume Killed".parse::<Listing>().unwrap_err()).contains("Killed"));
    }
}
