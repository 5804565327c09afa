//! The kit kills the plugin: it is started as a process of this test's own program.

use dunnage_test_common::{Need, Scratch, can_run};

use crate::mutant::{ALL, Mutant};
use crate::{plugin, run, wrong};

const ROOT: &str = "CONFORMANCE_PLUGIN_ROOT";
const SERVE: &str = "crash::the_plugin_serves_as_a_process_of_its_own";
const MUTANT: &str = "CONFORMANCE_PLUGIN_MUTANT";

/// The process that the kit starts and kills is this test, told by its environment where to serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugin_serves_as_a_process_of_its_own() {
    if let Some(root) = std::env::var_os(ROOT).map(std::path::PathBuf::from) {
        let name = std::env::var(MUTANT).unwrap_or_default();
        let mutant = ALL.iter().map(|(mutant, _)| *mutant).find(|mutant| format!("{mutant:?}") == name);
        return plugin::Plugin::new(&root, mutant).serve(&root.join("csi.sock")).await;
    }
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("csi.sock");
    let report = run(&scratch, &socket, &["identity/p"], Some(command(&scratch, None))).await;
    assert_eq!((report.passed, report.failed), (2, 0), "{}", wrong(&report));
}

fn command(scratch: &Scratch, mutant: Option<Mutant>) -> String {
    let program = std::env::current_exe().unwrap();
    let mutant = mutant.map(|mutant| format!("{mutant:?}")).unwrap_or_default();
    let root = scratch.path().display();
    format!("{ROOT}={root} {MUTANT}={mutant} exec {} --exact {SERVE}", program.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_plugin_may_be_killed_at_any_moment() {
    if !can_run("the_right_plugin_may_be_killed_at_any_moment", &[Need::Root]).unwrap() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("csi.sock");
    let report = run(&scratch, &socket, &["crash/", "end/"], Some(command(&scratch, None))).await;
    assert!(report.failed == 0 && report.skipped == 0, "{}", wrong(&report));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_that_a_kill_breaks_is_told_by_its_case() {
    if !can_run("each_rule_that_a_kill_breaks_is_told_by_its_case", &[Need::Root]).unwrap() {
        return;
    }
    for (mutant, case) in ALL.iter().filter(|(mutant, case)| mutant.is_a_process(case)) {
        let scratch = Scratch::new().unwrap();
        let socket = scratch.path().join("csi.sock");
        let report = run(&scratch, &socket, &[case], Some(command(&scratch, Some(*mutant)))).await;
        assert!(report.failures().any(|(broken, _)| broken == *case), "{mutant:?}: {:?}", report.cases);
    }
}
