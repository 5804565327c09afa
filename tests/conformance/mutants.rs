//! Each broken rule is told by its case.

use std::collections::BTreeSet;

use dunnage::conformance::cases;
use dunnage_test_common::{Need, can_run};

use crate::mutant::{ALL, Mutant};
use crate::{test, wrong};

/// Whether the kit fails the mutant by its case.
async fn told(mutant: Mutant, case: &str) -> Result<(), String> {
    // What is left can only be told where something was made.
    let made = [("volumes", "create-volume/answer"), ("snapshots", "create-snapshot/answer"), ("", "node/mount/life")];
    let made = made.iter().find(|(what, _)| case.ends_with(what)).map(|(_, made)| *made);
    let cases: Vec<_> = made.filter(|_| case.starts_with("end/")).into_iter().chain([case]).collect();
    let report = test(Some(mutant), &cases).await;
    let broken: Vec<_> = report.failures().chain(report.warnings()).map(|(case, _)| case).collect();
    if broken.contains(&case) {
        return Ok(());
    }
    Err(format!("{mutant:?} is not told by {case}, but by {broken:?}: {:?}", report.cases))
}

async fn all_told(part: usize, parts: usize) {
    let mut missed = Vec::new();
    let here = ALL.iter().enumerate().filter(|(number, _)| number % parts == part);
    for (_, (mutant, case)) in here.filter(|(_, (mutant, case))| !mutant.is_a_process(case)) {
        missed.extend(told(*mutant, case).await.err());
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Two halves, so that they run beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_rule_is_told_by_its_case() {
    if can_run("each_broken_rule_is_told_by_its_case", &[Need::Root]).unwrap() {
        all_told(0, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_rule_is_told_by_its_case_too() {
    if can_run("each_broken_rule_is_told_by_its_case_too", &[Need::Root]).unwrap() {
        all_told(1, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_is_told_by_no_case_that_has_nothing_to_do_with_it() {
    if !can_run("a_broken_rule_is_told_by_no_case", &[Need::Root]).unwrap() {
        return;
    }
    for mutant in [Mutant::AcceptsAnyToken, Mutant::GroupIgnoresMismatch, Mutant::ReadonlyIsWritable] {
        let report = test(Some(mutant), &[]).await;
        let case = ALL.iter().find(|(own, _)| *own == mutant).unwrap().1;
        let broken: BTreeSet<_> = report.failures().chain(report.warnings()).map(|(case, _)| case).collect();
        let both = BTreeSet::from(["node/mount/readonly", "node/block/readonly"]);
        assert!(broken == BTreeSet::from([case]) || broken == both, "{mutant:?}: {}", wrong(&report));
    }
}

/// A case that no mutant is told by is a case of which nobody knows whether it tells anything.
#[test]
fn every_case_has_a_mutant() {
    let broken: BTreeSet<_> = ALL.iter().map(|(_, case)| *case).collect();
    let known: BTreeSet<_> = cases().iter().map(|case| case.name).collect();
    assert!(broken.is_subset(&known), "{:?}", broken.difference(&known));
    let without: Vec<_> = known.difference(&broken).copied().collect();
    assert_eq!(without, WITHOUT);
}

/// The kit does not even connect without the first; the others are kills at moments that a mutant of another case has.
const WITHOUT: &[&str] = &[
    "crash/block/between-node-calls",
    "crash/block/within-node-calls",
    "crash/mount/within-node-calls",
    "crash/within-clone",
    "crash/within-expand",
    "crash/within-snapshot",
    "group/capabilities",
];
