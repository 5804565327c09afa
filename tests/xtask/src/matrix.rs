//! What is tested of each driver against what goes wrong: `docs/matrix.md`, made from tests that ran and passed.
//!
//! Tests note what they call while something is wrong; what they noted counts once they have passed. The listing keeps it,
//! a line for each driver, RPC, fault and test, so that what ran here and what ran elsewhere come together in it. The page
//! is the listing, to be read.

mod faults;
mod listing;
mod page;
mod results;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::session::Session;
use crate::steps::vm;
use crate::summary::Outcome;
use listing::Listing;
pub(crate) use results::{Results, VARIABLE};

const LISTING: &str = "tests/covered.txt";
const PAGE: &str = "docs/matrix.md";
const REMEDY: &str = "run what is not as the page says (`cargo xtask vm NAME`, `cargo xtask test --only test`), then \
                      `cargo xtask matrix`, and review and commit the difference";

/// Writes the listing and the page anew: what tests covered as they ran here last, and of those that did not run here
/// what is listed already.
pub(crate) fn write(session: &Session) -> Result<()> {
    let (old, results) = (read(&session.root)?, Results::kept(session)?);
    let there = vm::test_names(session, &session.log("matrix"))?;
    let new = old.with(&results, &there);
    fs::write(session.root.join(LISTING), new.to_string()).with_context(|| format!("cannot write {LISTING}"))?;
    let page = page::render(&new, &faults::read(&session.root)?)?;
    fs::write(session.root.join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE} has {} lines of {LISTING}, {} of them from tests that ran here", new.0.len(), new.of(&results));
    Ok(())
}

/// Fails where the page is not the listing's, names a test that is not there, or says of one that ran here what it did not
/// cover.
pub(crate) fn check(session: &mut Session) -> Result<Outcome> {
    let listing = read(&session.root)?;
    let page = fs::read_to_string(session.root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    ensure!(
        page == page::render(&listing, &faults::read(&session.root)?)?,
        "{PAGE} is not as {LISTING} has it: {REMEDY}"
    );
    let there = vm::test_names(session, &session.log("matrix"))?;
    let wrong = wrong(&listing, &there, &Results::kept(session)?);
    if !wrong.is_empty() {
        wrong.iter().for_each(|line| println!("{line}"));
        bail!("{} lines of {LISTING} are wrong: {REMEDY}", wrong.len());
    }
    println!("{PAGE} is as {LISTING} has it, and nothing that ran here says otherwise");
    Ok(Outcome::passed())
}

fn wrong(listing: &Listing, there: &BTreeSet<String>, results: &Results) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in &listing.0 {
        if !there.contains(&line.test) {
            wrong.push(format!("there is no such test: {line}"));
        } else if results.ran(&line.test) && !results.covered(&line.test).any(|covered| *covered == line.cell) {
            wrong.push(format!("it ran here, and did not pass with that: {line}"));
        }
    }
    wrong
}

fn read(root: &Path) -> Result<Listing> {
    let text = fs::read_to_string(root.join(LISTING)).with_context(|| format!("cannot read {LISTING}"))?;
    text.parse().with_context(|| format!("{LISTING} is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_wrong_whose_test_is_not_there_failed_or_covers_something_else() {
        let listing: Listing = "lvm CreateVolume Killed kit there::a\nlvm CreateVolume Killed kit gone::b\n\
                                nfs CreateVolume Killed kit elsewhere::c\nnfs DeleteVolume Killed kit failed::d\n"
            .parse()
            .unwrap();
        let names = ["kit there::a", "kit elsewhere::c", "kit failed::d"].map(str::to_owned);
        let there = BTreeSet::from(names);
        let kept = "passed kit there::a\nnoted kit there::a lvm DeleteVolume Killed\nfailed kit failed::d\n";
        let results = Results::parse(kept).unwrap();
        let wrong = wrong(&listing, &there, &results);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        for (line, words) in wrong.iter().zip(["there::a", "failed::d", "gone::b"]) {
            assert!(wrong.iter().any(|line| line.contains(words)), "{line}");
        }
        assert!(!wrong.iter().any(|line| line.contains("elsewhere::c")), "{wrong:?}");
    }
}
