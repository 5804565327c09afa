//! What several backends take that is one backend's alone. No driver sees it, since none knows of another.

use dunnage_driver_api::{BackendName, Claim, Finding};

/// Adds to each backend what it claims and another one claims too: of two backends the worst alone, for what is one
/// root is also one instance and one file system.
pub(super) fn add(backends: &mut [(&BackendName, Vec<Finding>)]) {
    let claims: Vec<Vec<Claim>> = backends
        .iter()
        .map(|(_, findings)| findings.iter().flat_map(|finding| finding.claims.clone()).collect())
        .collect();
    let names: Vec<BackendName> = backends.iter().map(|(name, _)| (*name).clone()).collect();
    for (own, (_, findings)) in backends.iter_mut().enumerate() {
        for (other, name) in names.iter().enumerate().filter(|(other, _)| *other != own) {
            let shared = claims[own].iter().filter(|claim| claims[other].iter().any(|one| one.thing == claim.thing));
            // The last of the worst: drivers claim from the general to the particular.
            if let Some(Claim { clash, .. }) = shared.max_by_key(|claim| claim.clash.severity) {
                let mut told = (**clash).clone();
                told.text.push_str(&format!(" (backend {name} too)"));
                findings.push(told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    fn name(text: &str) -> BackendName {
        text.parse().unwrap()
    }

    fn claims(things: &[(&str, Severity)]) -> Vec<Finding> {
        let claim = |finding: Finding, (thing, severity): &(&str, Severity)| {
            let mut clash = Finding::error(format!("clash of {thing}"), "mend");
            clash.severity = *severity;
            finding.claiming(thing, clash)
        };
        vec![things.iter().fold(Finding::ok("looked"), claim)]
    }

    #[test]
    fn the_worst_that_two_backends_share_is_told_to_both() {
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let mut backends = [
            (
                &a,
                claims(&[("room 1", Severity::Warning), ("instance x", Severity::Error), ("root 7", Severity::Error)]),
            ),
            (
                &b,
                claims(&[("instance x", Severity::Error), ("root 7", Severity::Error), ("room 1", Severity::Warning)]),
            ),
            (&c, claims(&[("room 1", Severity::Warning), ("root 8", Severity::Error)])),
        ];
        add(&mut backends);
        let told = |index: usize| -> Vec<_> {
            let (_, findings) = &backends[index];
            findings[1..].iter().map(|finding| (finding.severity, finding.text.as_str())).collect()
        };
        assert_eq!(
            told(0),
            [
                (Severity::Error, "clash of root 7 (backend b too)"),
                (Severity::Warning, "clash of room 1 (backend c too)")
            ]
        );
        assert_eq!(told(1)[0], (Severity::Error, "clash of root 7 (backend a too)"));
        assert_eq!(told(2).len(), 2);
    }

    #[test]
    fn what_is_one_backends_alone_is_not_told() {
        let (a, b) = (name("a"), name("b"));
        let mut backends = [(&a, claims(&[("root 1", Severity::Error)])), (&b, claims(&[("root 2", Severity::Error)]))];
        add(&mut backends);
        assert!(backends.iter().all(|(_, findings)| findings.len() == 1));
    }
}
