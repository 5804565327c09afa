//! The kit kills the plugin: it is started as a process of this test's own program.

use dunnage_test_common::{Need, Scratch, can_run};

use crate::mutant::{ALL, Mutant};
use crate::{plugin, run, wrong};

const ROOT: &str = "CONFORMANCE_PLUGIN_ROOT";
const MUTANT: &str = "CONFORMANCE_PLUGIN_MUTANT";

/// No test: the process that the kit starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the plugin itself, which other tests start"]
async fn serve() {
    let Some(root) = std::env::var_os(ROOT).map(std::path::PathBuf::from) else { return };
    let name = std::env::var(MUTANT).unwrap_or_default();
    let mutant = ALL.iter().map(|(mutant, _)| *mutant).find(|mutant| format!("{mutant:?}") == name);
    plugin::Plugin::new(&root, mutant).serve(&root.join("csi.sock")).await;
}

fn command(scratch: &Scratch, mutant: Option<Mutant>) -> String {
    let program = std::env::current_exe().unwrap();
    let mutant = mutant.map(|mutant| format!("{mutant:?}")).unwrap_or_default();
    let root = scratch.path().display();
    format!("{ROOT}={root} {MUTANT}={mutant} exec {} --exact crash::serve --ignored", program.display())
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
    for (mutant, case) in ALL.iter().filter(|(_, case)| case.starts_with("crash/")) {
        let scratch = Scratch::new().unwrap();
        let socket = scratch.path().join("csi.sock");
        let report = run(&scratch, &socket, &[case], Some(command(&scratch, Some(*mutant)))).await;
        assert!(report.failures().any(|(broken, _)| broken == *case), "{mutant:?}: {:?}", report.cases);
    }
}
