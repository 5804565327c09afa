//! The checked-in lists of what is skipped, and why.
//!
//! A list has the capability that is not advertised in brackets, and the specs that need it below.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::{controller_service_capability, node_service_capability, plugin_capability};

use super::report::Report;

/// Stands where a capability would, above the specs that csi-sanity itself does not run.
pub(crate) const PENDING: &str = "pending";

/// The same above those of a limit that no plugin here has: csi-sanity runs them where it is told one alone.
const NO_LIMIT: &str = "no max_volumes_per_node";

/// Each spec with what explains that it is skipped.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut specs = BTreeMap::new();
    let mut why = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            ensure!(is_reason(header), "the specification has no capability {header:?}");
            why = Some(header);
        } else {
            let why = why.with_context(|| format!("no capability in brackets before {line:?}"))?;
            ensure!(specs.insert(line.into(), why.into()).is_none(), "{line:?} is listed twice");
        }
    }
    Ok(specs)
}

fn is_reason(header: &str) -> bool {
    match header.split_once(' ') {
        Some(("plugin", name)) => plugin_capability::service::Type::from_str_name(name).is_some(),
        Some(("controller", name)) => controller_service_capability::rpc::Type::from_str_name(name).is_some(),
        Some(("node", name)) => node_service_capability::rpc::Type::from_str_name(name).is_some(),
        _ => [PENDING, NO_LIMIT].contains(&header),
    }
}

/// What is wrong: skipped and not listed, listed and not skipped, or explained by something that is advertised.
pub(crate) fn compare(
    listed: &BTreeMap<String, String>,
    report: &Report,
    advertised: &BTreeSet<String>,
) -> Vec<String> {
    let skipped = report.skipped();
    let mut wrong = Vec::new();
    for (spec, why) in &skipped {
        if !listed.contains_key(spec) {
            wrong.push(format!("skipped and not listed: {spec} (csi-sanity says: {why})"));
        }
    }
    for (spec, why) in listed {
        if !skipped.contains_key(spec) {
            wrong.push(format!("listed and not skipped: {spec}"));
        }
        if advertised.contains(why) {
            wrong.push(format!("explained by {why}, which is advertised: {spec}"));
        }
        if (why == PENDING) != (skipped.get(spec) == Some(&PENDING)) && skipped.contains_key(spec) {
            wrong.push(format!("explained by {why}, but csi-sanity says {:?}: {spec}", skipped.get(spec)));
        }
    }
    wrong
}

#[test]
fn a_list_must_name_a_capability_of_the_specification() {
    let listed = parse("[node GET_VOLUME_HEALTH]\nNode is well\n\n[pending]\nList pages\n").unwrap();
    assert_eq!(listed["Node is well"], "node GET_VOLUME_HEALTH");
    assert!(parse("[node LEVITATE]\nNode floats\n").is_err());
    assert!(parse("Node floats\n").is_err());
}
