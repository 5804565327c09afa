//! The right plugin.

use dunnage::conformance::Verdict;
use dunnage_test_common::{Need, can_run};

use crate::{test, wrong};

/// Why a case may be skipped for a plugin that has everything.
const ALLOWED: [&str; 3] =
    ["--start", "the controller has the capability CLONE_VOLUME", "the plugin has volumes of both access types"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_plugin_passes_everything() {
    if !can_run("the_right_plugin_passes_everything", &[Need::Root]).unwrap() {
        return;
    }
    let report = test(None, &[]).await;
    assert!(report.failed == 0 && report.warned == 0, "{}", wrong(&report));
    assert!(report.passed > 130, "{}", report.passed);
    for outcome in &report.cases {
        if let Verdict::Skipped { reason } = &outcome.verdict {
            assert!(ALLOWED.iter().any(|allowed| reason.contains(allowed)), "{}: {reason}", outcome.name);
        }
    }
}
