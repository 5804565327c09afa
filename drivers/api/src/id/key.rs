//! What a volume is found by.

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

use super::digest;
use crate::error::{Error, Result};
use crate::text::Quoted;

/// What a volume is found by in its instance: made from the name in CreateVolume alone, so that a repeated call finds
/// the first attempt: 1 to 52 characters of `a-z`, `0-9`, `_`, `-`, `.`, the first a letter or a digit, and one `+` before
/// the digest where the name itself did not fit.
///
/// It is safe as the name of a file on Linux and as a segment of a URL's path. Other stores have names of their own that
/// are taken or not allowed (LVM refuses `snapshot` and `pvmove0`, a ZFS dataset and a Kubernetes label have no `+`): a
/// driver for such a store maps the key to a name of its store, one to one, or keeps the name beside it.
// Held in place: a hundred thousand of them are one block of memory, and not as many small ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeKey(ArrayString<{ VolumeKey::MAX_LENGTH }>);

impl VolumeKey {
    /// The greatest length of its text in bytes.
    pub const MAX_LENGTH: usize = 52;

    const DIGEST: usize = 32;

    /// The key of a requested name: the name itself where it is already safe (`pvc-…` is), else its beginning, made
    /// safe, with a digest of the whole, which no safe name can look like.
    pub fn of_name(name: &str) -> Self {
        if let Some(key) = Self::plain(name) {
            return key;
        }
        let mut key = ArrayString::new();
        for c in name.chars().take(Self::MAX_LENGTH - 1 - Self::DIGEST) {
            let c = if is_plain_byte(c) { c } else { '_' };
            key.push(if key.is_empty() && !c.is_ascii_alphanumeric() { 'x' } else { c });
        }
        if key.is_empty() {
            key.push('x');
        }
        key.push('+');
        key.push_str(&digest::of_name(name));
        Self(key)
    }

    /// The name that is its own key.
    fn plain(name: &str) -> Option<Self> {
        if is_plain(name) { ArrayString::from(name).ok().map(Self) } else { None }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain_byte(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.')
}

fn is_plain(text: &str) -> bool {
    (1..=VolumeKey::MAX_LENGTH).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_plain_byte)
}

impl FromStr for VolumeKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let key = match text.split_once('+') {
            Some((start, digest)) => {
                let safe = is_plain(start) && digest.len() == Self::DIGEST && super::base32::is_base32(digest);
                if safe { ArrayString::from(text).ok().map(Self) } else { None }
            }
            None => Self::plain(text),
        };
        key.ok_or_else(|| Error::invalid(format!("{} is no key of a volume", Quoted(text))))
    }
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<VolumeKey> for String {
    fn from(key: VolumeKey) -> Self {
        key.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_a_provisioner_gives_is_the_key() {
        let name = "pvc-0f8cb9d5-1c70-4e4b-8f2f-6d3f1a2b3c4d";
        assert_eq!(VolumeKey::of_name(name).as_str(), name);
    }

    #[test]
    fn a_name_that_climbs_stays_one_harmless_name() {
        for name in ["../../etc", "/abs", ".hidden", "a/b", "", "A", "a\0b"] {
            let key = VolumeKey::of_name(name);
            assert!(!key.as_str().contains('/') && !key.as_str().starts_with('.'), "{name:?} -> {key}");
            assert_eq!(key.as_str().parse::<VolumeKey>().unwrap(), key);
        }
    }

    proptest! {
        #[test]
        fn every_name_gives_a_key_that_parses(name in "\\PC{0,128}") {
            let key = VolumeKey::of_name(&name);
            prop_assert!(key.as_str().len() <= VolumeKey::MAX_LENGTH);
            prop_assert_eq!(key.as_str().parse::<VolumeKey>().unwrap(), key);
        }

        #[test]
        fn unlike_names_give_unlike_keys(a in "[a-zA-Z.+_]{1,60}", b in "[a-zA-Z.+_]{1,60}") {
            prop_assume!(a != b);
            prop_assert_ne!(VolumeKey::of_name(&a), VolumeKey::of_name(&b));
        }

        #[test]
        fn whatever_parses_is_one_component_of_a_path(text in "\\PC{0,60}") {
            if let Ok(key) = text.parse::<VolumeKey>() {
                prop_assert!(!key.as_str().contains(['/', '\0']) && key.as_str() != "." && key.as_str() != "..");
            }
        }
    }
}
