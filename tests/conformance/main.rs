//! The conformance kit, tested: a right plugin passes all of it, and each broken rule is told by its case.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod in_guest;
mod mutant;
mod mutants;
mod ours;
mod plugin;
mod right;

use std::path::Path;

use dunnage::client::{Endpoint, Interrupt};
use dunnage::conformance::{self, Options, Params, Quiet, Report};
use dunnage_test_common::Scratch;

use mutant::Mutant;

/// What the plugin of these tests is told of.
fn params(scratch: &Scratch) -> Params {
    let text = "
size: 4MiB
many: 3
kills: 8
mount_flags: [noatime]
parameters: {class: one}
other_parameters: {class: two}
mutable_parameters: [{speed: slow}, {speed: fast}]
";
    let mut params = Params::parse(text).unwrap();
    params.folder = scratch.folder("paths").unwrap();
    params
}

/// Runs the kit, or these cases of it, against the plugin in this process.
async fn test(mutant: Option<Mutant>, only: &[&str]) -> Report {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("csi.sock");
    let plugin = plugin::Plugin::new(scratch.path(), mutant);
    let serving = tokio::spawn({
        let socket = socket.clone();
        async move { plugin.serve(&socket).await }
    });
    let report = run(&scratch, &socket, only, None).await;
    serving.abort();
    report
}

async fn run(scratch: &Scratch, socket: &Path, only: &[&str], start: Option<String>) -> Report {
    let options = Options {
        endpoint: Endpoint::at(socket).unwrap(),
        params: params(scratch),
        only: only.iter().map(ToString::to_string).collect(),
        start,
        seed: 7,
    };
    let (_raise, interrupt) = Interrupt::by_hand();
    conformance::run(options, &interrupt, &mut Quiet).await.unwrap()
}

/// What is wrong, to be read.
fn wrong(report: &Report) -> String {
    let all = report.failures().chain(report.warnings());
    all.map(|(case, failure)| format!("{case}\n{failure}\n")).collect()
}
