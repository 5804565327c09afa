//! The listing as a page.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::faults::Faults;
use super::listing::{Line, Listing};

const HEAD: &str = "\
# What is tested against what goes wrong

Made by `cargo xtask matrix` from tests that ran and passed, and not to be edited: [testing](testing.md) says how. A test is
counted for the calls that it makes to a driver while something is wrong; with `NoServer`, say, also those by which it looks
at what is left when the server is back. Where there is nothing, no test says that it is tested; not all can be.

";

/// # Errors
/// The listing has a fault that the tests have not.
pub(crate) fn render(listing: &Listing, faults: &Faults) -> Result<String> {
    for line in &listing.0 {
        let known = faults.iter().any(|(name, _)| *name == line.cell.fault);
        ensure!(known, "there is no such fault: {line}");
    }
    let (mut overview, mut sections) = (String::new(), String::new());
    let drivers: BTreeSet<_> = listing.0.iter().map(|line| line.cell.driver.as_str()).collect();
    overview.push_str(&row("what is wrong, with the number of RPCs", drivers.iter().map(ToString::to_string)));
    overview.push_str(&rule(drivers.len()));
    for (fault, sentence) in faults {
        let lines: Vec<_> = listing.0.iter().filter(|line| line.cell.fault == *fault).collect();
        let rpcs = |driver: &&str| {
            lines.iter().filter(|line| line.cell.driver == *driver).map(|line| &line.cell.rpc).collect::<BTreeSet<_>>()
        };
        let link = if lines.is_empty() { fault.clone() } else { format!("[{fault}](#{})", fault.to_lowercase()) };
        overview.push_str(&row(&link, drivers.iter().map(|driver| number(rpcs(driver).len()))));
        if !lines.is_empty() {
            sections.push_str(&section(fault, sentence, &lines));
        }
    }
    Ok(format!("{HEAD}{overview}{sections}"))
}

/// All about one fault: its calls, and the tests.
fn section(fault: &str, sentence: &str, lines: &[&Line]) -> String {
    let drivers: BTreeSet<_> = lines.iter().map(|line| line.cell.driver.as_str()).collect();
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut tests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in lines {
        *counts.entry(&line.cell.rpc).or_default().entry(&line.cell.driver).or_default() += 1;
        tests.entry(&line.cell.driver).or_default().insert(&line.test);
    }
    let mut text = format!("\n## {fault}\n\n{sentence}\n\n");
    text.push_str(&row("RPC, with the number of tests", drivers.iter().map(ToString::to_string)));
    text.push_str(&rule(drivers.len()));
    for (rpc, counts) in counts {
        let count = |driver: &&str| number(counts.get(driver).copied().unwrap_or_default());
        text.push_str(&row(rpc, drivers.iter().map(count)));
    }
    for (driver, tests) in tests {
        text.push_str(&format!("\n{driver}:\n"));
        tests.iter().for_each(|test| text.push_str(&format!("- `{test}`\n")));
    }
    text
}

fn row(first: &str, rest: impl Iterator<Item = String>) -> String {
    let rest: String = rest.map(|cell| format!(" {cell} |")).collect();
    format!("| {first} |{rest}\n")
}

fn rule(columns: usize) -> String {
    format!("|---|{}\n", "---|".repeat(columns))
}

fn number(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_number_of_its_tests_and_a_fault_without_tests_is_empty() {
        let listing: Listing = "dir CreateVolume Killed kit a\nlvm CreateVolume Killed kit a\n\
                                lvm CreateVolume Killed kit b\nlvm DeleteVolume Killed kit b\n"
            .parse()
            .unwrap();
        let faults = [("Killed", "The host is killed."), ("Frozen", "It is frozen.")];
        let faults: Faults = faults.map(|(name, said)| (name.into(), said.into())).into();
        let page = render(&listing, &faults).unwrap();
        for line in [
            "| [Killed](#killed) | 1 | 2 |",
            "| Frozen |  |  |",
            "| CreateVolume | 1 | 2 |",
            "| DeleteVolume |  | 1 |",
            "lvm:\n- `kit a`\n- `kit b`\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
        assert!(render(&listing, &faults[1..].to_vec()).is_err(), "a fault that nobody knows");
    }
}
