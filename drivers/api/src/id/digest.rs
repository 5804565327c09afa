//! A short digest of what was asked, kept with what was made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::base32;

/// The digest of the request that made a volume, stored beside it: a repeated request with another digest is not the
/// same request (CSI: ALREADY_EXISTS). Capacity is not in it, since a range is compared with a size; neither are
/// secrets nor the orchestrator's own keys. 26 characters of base 32.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Arc<str>);

impl Fingerprint {
    /// The digest of named parts. The order of the map is the order of its keys, so that equal maps are equal here.
    pub fn of(parts: &BTreeMap<String, String>) -> Self {
        let mut hash = Sha256::new();
        for (name, value) in parts {
            for text in [name, value] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        Self(base32::encode(&hash.finalize()[..16]).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 160 bits of the SHA-256 of `name`: two names with one digest are not to be found.
pub(super) fn of_name(name: &str) -> String {
    base32::encode(&Sha256::digest(name.as_bytes())[..20])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_key_and_value_changes_the_digest() {
        let of = |key: &str, value: &str| Fingerprint::of(&BTreeMap::from([(key.into(), value.into())]));
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_eq!(of("a", "b"), of("a", "b"));
    }
}
