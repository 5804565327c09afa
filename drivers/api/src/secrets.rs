//! What a request brings in secret fields.

use std::collections::BTreeMap;
use std::fmt;

/// The secrets of one request (CSI `csi_secret` fields): held for the call, shown nowhere, compared with nothing.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The value of a secret, or `None` where the request brought none of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, for a driver that forwards them: to another plugin, or to the standard input of a program. Never to
    /// an argument, a log or an error.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether the request brought none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Says how many there are, neither their names nor their values.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets(<{} redacted>)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_forwarded_and_none_is_shown() {
        let secrets = Secrets::from_iter([("user", "admin"), ("password", "canary")]);
        assert_eq!(secrets.pairs().collect::<Vec<_>>(), [("password", "canary"), ("user", "admin")]);
        assert_eq!(format!("{secrets:?}"), "Secrets(<2 redacted>)");
    }
}
