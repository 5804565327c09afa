//! The name of a plugin.

use std::fmt;
use std::str::FromStr;

use dunnage_driver_api::BackendName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The domain of the CSI names that nobody chose.
pub const DOMAIN: &str = "csi.dunnage.dev";

/// The CSI name of a plugin (`GetPluginInfoResponse.name`): 1 to 63 characters in the form of a domain name, which also
/// names the folder of its socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("maxLength" = 63, "pattern" = "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"))]
pub struct CsiName(String);

/// A text that is no CSI name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no CSI name: use 1 to 63 of a-z, A-Z, 0-9, - and ., in the form of a domain name, with a letter or digit \
     at both ends of each label"
)]
pub struct NoCsiName(String);

impl CsiName {
    /// The name of a backend's own plugin where none is configured.
    pub fn of_backend(name: &BackendName) -> Self {
        Self(format!("{name}.{DOMAIN}"))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an orchestrator takes both for one: domain names know no case.
    pub fn same(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl FromStr for CsiName {
    type Err = NoCsiName;

    fn from_str(text: &str) -> Result<Self, NoCsiName> {
        let label = |label: &str| {
            label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && label.starts_with(|c: char| c.is_ascii_alphanumeric())
                && label.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if text.len() <= 63 && text.split('.').all(label) { Ok(Self(text.into())) } else { Err(NoCsiName(text.into())) }
    }
}

impl fmt::Display for CsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CsiName {
    type Error = NoCsiName;

    fn try_from(text: String) -> Result<Self, NoCsiName> {
        text.parse()
    }
}

impl From<CsiName> for String {
    fn from(name: CsiName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csi_name_is_a_domain_name_of_at_most_63_characters() {
        for good in ["a", "A1", "disks.storage.example.com", "a-b.c", &"a".repeat(63)] {
            assert!(good.parse::<CsiName>().is_ok(), "{good}");
        }
        for bad in
            ["", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a_b", "a/b", "..", "ü.example.com", &"a".repeat(64)]
        {
            assert!(bad.parse::<CsiName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_backend_name_makes_a_csi_name() {
        let name = CsiName::of_backend(&"a".repeat(42).parse().unwrap());
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
    }
}
