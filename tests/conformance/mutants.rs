//! Each broken rule is told by its case.

use std::collections::BTreeSet;

use dunnage::conformance::cases;
use dunnage_test_common::{Need, can_run};

use crate::mutant::{ALL, Mutant};
use crate::{test, wrong};

/// Whether the kit fails the mutant by its case.
async fn told(mutant: Mutant, case: &str) -> Result<(), String> {
    // What is left can only be told where something was made.
    let cases = if case.starts_with("end/") { vec!["create-volume/answer", case] } else { vec![case] };
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
fn every_case_has_a_mutant_or_a_twin_that_has() {
    let broken: BTreeSet<_> = ALL.iter().map(|(_, case)| *case).collect();
    let known: BTreeSet<_> = cases().iter().map(|case| case.name).collect();
    assert!(broken.is_subset(&known), "{:?}", broken.difference(&known));
    // One function with the other kind of volume, source or moment.
    let without: Vec<_> = known.difference(&broken).filter(|case| !case.starts_with("crash/")).collect();
    assert!(without.len() <= WITHOUT.len() && without.iter().all(|case| WITHOUT.contains(*case)), "{without:#?}");
}

const WITHOUT: &[&str] = &[
    "create-volume/again-smaller-limit",
    "create-volume/without-size",
    "validate/not-supported",
    "delete-volume/at-once",
    "delete-volume/client-gone",
    "delete-volume/name-again",
    "expand/create-again",
    "expand/limit-below-required",
    "expand/at-once",
    "expand/client-gone",
    "modify/again",
    "modify/create-with",
    "list-volumes/pages-under-change",
    "node/block/readonly",
    "node/mount/expand-online",
    "stage/block/again",
    "stage/at-once",
    "publish/client-gone",
    "unpublish/block/again",
    "unpublish/client-gone",
    "unpublish/not-found",
    "content/block/next-publish",
    "content/mount/own",
    "content/block/own",
    "content/mount/name-again",
    "content/block/name-again",
    "create-snapshot/at-once",
    "create-snapshot/client-gone",
    "restore/client-gone",
    "restore/smaller",
    "restore/block/content",
    "restore/mount/larger",
    "restore/mount/beside",
    "clone/client-gone",
    "clone/source-not-found",
    "clone/block/content",
    "clone/mount/larger",
    "clone/mount/beside",
    "group/capabilities",
    "group/client-gone",
    "group/delete-again",
    "group/content",
    "health/node-volume-not-found",
    "health/node-volume-required-fields",
    "end/snapshots",
    "end/mounts",
    "end/folders",
];
