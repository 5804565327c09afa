//! The limits of CSI on strings and maps (section "Size Limits"), and the checks that every request shares.

use std::collections::HashMap;
use std::fmt;

use dunnage_driver_api::{Error, Result, Secrets, VolumeId};

use crate::telemetry::{self, Field};

/// The general limit of a string, in bytes.
const STRING: usize = 128;
/// The general limit of a map that we keep, in bytes of its keys and values.
const KEPT_MAP: usize = 4 << 10;
/// What we take of a map that we do not keep: secrets and contexts grow with certificates and tokens.
const PASSING_MAP: usize = 64 << 10;

/// An error for a field that has to be there.
pub(super) fn missing(field: &str) -> Error {
    Error::invalid(format!("{field} is missing: it is a required field"))
}

/// A name in CreateVolume: 1 to 128 bytes without control characters other than white space. From here on the call's
/// lines in the log have it.
pub(super) fn name(field: &str, text: String) -> Result<String> {
    let banned = |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f'..='\u{9f}');
    if text.is_empty() {
        return Err(missing(field));
    }
    telemetry::record(Field::VolumeName, &text);
    short(field, &text)?;
    match text.chars().find(|c| banned(*c)) {
        Some(c) => Err(Error::invalid(format!("{field} {text:?} has the control character {c:?}: leave it out"))),
        None => Ok(text),
    }
}

/// A string of at most 128 bytes.
pub(crate) fn short(field: &str, text: &str) -> Result<()> {
    if text.len() <= STRING {
        return Ok(());
    }
    let start: String = text.chars().take(32).collect();
    Err(Error::invalid(format!("{field} {start:?}… has {} bytes: at most {STRING} are allowed", text.len())))
}

/// A map that is kept with the volume: at most 4 KiB.
pub(super) fn kept(field: &str, map: &HashMap<String, String>) -> Result<()> {
    within(field, map, KEPT_MAP)
}

/// A map that is used for the call alone: at most 64 KiB.
pub(super) fn passing(field: &str, map: &HashMap<String, String>) -> Result<()> {
    within(field, map, PASSING_MAP)
}

fn within(field: &str, map: &HashMap<String, String>, limit: usize) -> Result<()> {
    let size: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size <= limit {
        return Ok(());
    }
    Err(Error::invalid(format!("{field} has {size} bytes in its keys and values: at most {limit} are allowed")))
}

/// The secrets of a request, at most 64 KiB (CSI "Secrets Requirements").
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) where they are larger, and for a key with other
/// characters than CSI allows; the key is not shown.
pub fn secrets(map: HashMap<String, String>) -> Result<Secrets> {
    passing("secrets", &map)?;
    if !map.keys().all(|key| !key.is_empty() && key.bytes().all(is_plain)) {
        return Err(Error::invalid(
            "secrets have a key with characters that CSI does not allow: use letters, digits, '-', '_' and '.'",
        ));
    }
    Ok(map.into_iter().collect())
}

/// A letter, a digit, '-', '_' or '.': what CSI allows in a key.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// The volume that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeHandle {
    /// An id of the form that we make.
    Ours(VolumeId),
    /// Any other text: such a volume was never made here, unless it is the handle of an ephemeral one.
    Foreign(String),
}

/// The text as it came.
impl fmt::Display for VolumeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(id) => id.fmt(f),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

impl VolumeHandle {
    /// The id, for a call that cannot succeed without a volume.
    ///
    /// # Errors
    /// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a handle that is none of ours.
    pub fn ours(self) -> Result<VolumeId> {
        match self {
            Self::Ours(id) => Ok(id),
            Self::Foreign(text) => {
                Err(Error::not_found(format!("volume_id {text:?} names no volume: it is not of the form made here")))
            }
        }
    }
}

/// The volume that a request names: a required field of at most 128 bytes. From here on the call's lines in the log have
/// it.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) where it is missing or too long.
pub fn volume_handle(text: String) -> Result<VolumeHandle> {
    handle_of("volume_id", text)
}

/// As [`volume_handle`], for a volume that is named in another field.
pub(super) fn handle_of(field: &str, text: String) -> Result<VolumeHandle> {
    if text.is_empty() {
        return Err(missing(field));
    }
    telemetry::record(Field::VolumeId, &text);
    short(field, &text)?;
    Ok(match text.parse() {
        Ok(id) => VolumeHandle::Ours(id),
        Err(_) => VolumeHandle::Foreign(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_character_rules_of_the_spec() {
        for good in ["pvc-1", "a b\tc\n", "Ümläut 名前", &"x".repeat(128)] {
            assert_eq!(name("name", good.into()).unwrap(), good);
        }
        for bad in ["", "a\0b", "a\x0bb", "a\x7fb", "a\u{85}b", &"x".repeat(129)] {
            assert!(name("name", bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_kept_is_smaller_than_what_passes() {
        let map = HashMap::from([("k".to_owned(), "v".repeat(5000))]);
        assert!(kept("parameters", &map).is_err());
        assert!(passing("secrets", &map).is_ok());
        let map = HashMap::from([("k".to_owned(), "v".repeat(70_000))]);
        assert!(passing("secrets", &map).unwrap_err().to_string().contains("65536"));
    }

    #[test]
    fn keys_of_secrets_follow_the_character_rules_of_the_spec() {
        for (key, is_good) in [("password", true), ("A-b_c.9", true), ("", false), ("a b", false), ("ä", false)] {
            assert_eq!(secrets(HashMap::from([(key.to_owned(), "ä b".to_owned())])).is_ok(), is_good, "{key:?}");
        }
    }

    #[test]
    fn an_error_about_secrets_shows_none() {
        for (key, value) in [("canary-key", "canary".repeat(20_000)), ("canary key", "canary".to_owned())] {
            let map = HashMap::from([(key.to_owned(), value)]);
            assert!(!secrets(map).unwrap_err().to_string().contains("canary"));
        }
    }
}
