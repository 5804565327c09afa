//! Ginkgo's report of a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    /// Null for what runs around the specs.
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

/// What became of each spec.
pub(crate) struct Report {
    specs: Vec<Spec>,
}

impl Report {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let suites: Vec<Suite> = serde_json::from_str(text).context("the report has an unknown form")?;
        Ok(Self { specs: suites.into_iter().flat_map(|suite| suite.spec_reports).collect() })
    }

    pub(crate) fn passed(&self) -> usize {
        self.specs.iter().filter(|spec| spec.is_spec() && spec.state == "passed").count()
    }

    /// What did not pass and was not left out either, with the reason; what runs around the specs included.
    pub(crate) fn failed(&self) -> Vec<String> {
        let fine = |spec: &&Spec| {
            matches!(spec.state.as_str(), "passed" | "skipped" | "pending")
                || differs_in_memory_alone(&spec.failure.message)
        };
        let failed = self.specs.iter().filter(|spec| !fine(spec));
        failed.map(|spec| format!("{} ({}): {}", spec.name(), spec.state, spec.failure.message)).collect()
    }

    /// The specs that were left out, with the reason given.
    pub(crate) fn skipped(&self) -> BTreeMap<String, &str> {
        let skipped = self.specs.iter().filter_map(|spec| match spec.state.as_str() {
            "skipped" => Some((spec.name(), spec.failure.message.as_str())),
            "pending" => Some((spec.name(), super::skipped::PENDING)),
            _ => None,
        });
        skipped.collect()
    }
}

/// Whether two messages were found to differ that say the same: csi-sanity 5.6.0 compares the topology of a snapshot with
/// one that it has sent, in which the encoder has left a length (`sizeCache`), so that no plugin that tells the topology
/// can pass.
fn differs_in_memory_alone(message: &str) -> bool {
    let says = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        let lines =
            lines.filter(|line| !line.is_empty() && !line.starts_with("sizeCache:") && !line.starts_with("<*csi."));
        lines.map(str::to_owned).collect()
    };
    let compared = message.strip_prefix("Expected").and_then(|rest| rest.split_once("to equal"));
    compared.is_some_and(|(found, wanted)| found.contains("sizeCache:") && says(found) == says(wanted))
}

impl Spec {
    fn is_spec(&self) -> bool {
        self.leaf_node_type == "It"
    }

    fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten().map(String::as_str);
        containers.chain([self.leaf_node_text.as_str()]).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_report_tells_the_failed_from_the_skipped() {
    let report = Report::parse(
        r#"[{"SuitePath": "/x", "SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "BeforeSuite", "LeafNodeText": "", "State": "passed"},
            {"ContainerHierarchyTexts": ["Node", "Stage"], "LeafNodeType": "It", "LeafNodeText": "works",
             "State": "passed"},
            {"ContainerHierarchyTexts": ["Node"], "LeafNodeType": "It", "LeafNodeText": "grows",
             "State": "panicked", "Failure": {"Message": "nil"}},
            {"ContainerHierarchyTexts": ["Node"], "LeafNodeType": "It", "LeafNodeText": "is well",
             "State": "skipped", "Failure": {"Message": "not supported"}}]}]"#,
    )
    .unwrap();
    assert_eq!(report.passed(), 1);
    assert_eq!(report.failed(), ["Node grows (panicked): nil"]);
    assert_eq!(report.skipped(), BTreeMap::from([("Node is well".into(), "not supported")]));
}

#[test]
fn a_length_in_the_memory_of_the_suite_is_no_difference_and_all_else_is() {
    let message = |node: &str, size: u32| {
        format!(
            "    <*csi.Topology | 0xc0de>: {{\n  Segments: {{\n \"node\": \"{node}\",\n }},\n  sizeCache: {size},\n }}\n"
        )
    };
    let compared = |wanted: &str| format!("Expected\n{}to equal\n{wanted}", message("a", 0));
    assert!(differs_in_memory_alone(&compared(&message("a", 29))));
    assert!(!differs_in_memory_alone(&compared(&message("b", 29))));
    assert!(!differs_in_memory_alone("Expected\n    <int>: 1\nto equal\n    <int>: 1"));
}
