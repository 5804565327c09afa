//! What came of a run.

use serde::Serialize;

use super::{Failure, Strength};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// The plugin keeps the rule.
    Passed,
    /// It breaks it.
    Failed(Failure),
    /// It breaks a rule that is only recommended.
    Warned(Failure),
    /// The rule does not apply.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// A case and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The case.
    pub name: &'static str,
    /// The section of the specification.
    pub section: &'static str,
    /// How strongly it is asked for.
    pub strength: Strength,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub micros: u64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The plugin's CSI name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// What the chances of this run came from: the same seed again makes the same choices.
    pub seed: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// How many rules are kept.
    pub passed: usize,
    /// How many are broken.
    pub failed: usize,
    /// How many recommendations are not followed.
    pub warned: usize,
    /// How many do not apply.
    pub skipped: usize,
    /// How long it took.
    pub micros: u64,
    /// What may make cases fail that is no fault of the plugin.
    pub notes: Vec<String>,
    /// The cases.
    pub cases: Vec<Outcome>,
}

impl Report {
    pub(super) fn count(&mut self) {
        let count = |of: fn(&Verdict) -> bool| self.cases.iter().filter(|outcome| of(&outcome.verdict)).count();
        let counted = [
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Warned(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
        ];
        [self.passed, self.failed, self.warned, self.skipped] = counted;
    }

    /// The cases that ended so that the plugin does not keep a rule that it must.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        self.cases.iter().filter_map(|outcome| match &outcome.verdict {
            Verdict::Failed(failure) => Some((outcome.name, failure)),
            _ => None,
        })
    }

    /// The cases whose rule is only recommended, and not followed.
    pub fn warnings(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        self.cases.iter().filter_map(|outcome| match &outcome.verdict {
            Verdict::Warned(failure) => Some((outcome.name, failure)),
            _ => None,
        })
    }
}
