//! The cases, in the order in which they are gone through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::failure::Checked;
use super::kit::Kit;
use super::needs::Need;

/// What a case is when it runs.
pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Checked> + 'a>>;

/// How strongly the specification asks for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Strength {
    /// Whoever breaks it is not compliant.
    Must,
    /// It is recommended.
    Should,
}

/// One rule.
pub struct Case {
    /// Its name: the area, and the rule.
    pub name: &'static str,
    /// The section of the specification that it stands in.
    pub section: &'static str,
    /// How strongly it is asked for.
    pub strength: Strength,
    pub(super) needs: &'static [Need],
    pub(super) run: for<'a> fn(&'a Kit) -> Running<'a>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("section", &self.section).finish_non_exhaustive()
    }
}

impl Case {
    /// Why it does not apply.
    pub(super) fn lack(&self, kit: &Kit) -> Option<String> {
        self.needs.iter().find_map(|need| need.lack(kit))
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    super::cases::all()
}

/// The cases of an area: a name, the section, what it needs, and what is done. `SHOULD` after the section says that the
/// specification recommends it only.
macro_rules! area {
    ($($name:literal, $section:literal $($should:ident)?, [$($need:expr),* $(,)?] => |$kit:ident| $run:expr;)*) => {
        pub(super) fn area() -> Vec<$crate::conformance::plan::Case> {
            vec![$($crate::conformance::plan::Case {
                name: $name,
                section: $section,
                strength: $crate::conformance::plan::strength!($($should)?),
                needs: { const NEEDS: &[$crate::conformance::needs::Need] = &[$($need),*]; NEEDS },
                run: |$kit| Box::pin($run),
            }),*]
        }
    };
}

macro_rules! strength {
    () => {
        $crate::conformance::Strength::Must
    };
    (SHOULD) => {
        $crate::conformance::Strength::Should
    };
}

pub(super) use {area, strength};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What the specification is called in the repository of its makers.
    #[test]
    fn every_case_has_a_name_of_its_own_and_a_section() {
        let all = cases();
        let names: HashSet<_> = all.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|case| !case.section.is_empty() && case.name.contains('/')));
    }
}
