//! Keys of a configuration, read so that an error can be found in the file.

mod words;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

pub(crate) use words::in_words;

/// Why the keys of a configuration cannot be read, and which one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KeyError {
    /// The key or value as a JSON Pointer (RFC 6901), empty for the whole. Where a key is missing it is what the key
    /// is missing from.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

impl KeyError {
    /// The same error seen from further up, where `parent` is a JSON Pointer too.
    #[must_use]
    pub fn below(self, parent: &str) -> Self {
        Self { pointer: format!("{parent}{}", self.pointer), message: self.message }
    }
}

/// Reads a value as `T`.
///
/// # Errors
/// Where a key is unknown, missing, or of another type.
pub fn read_keys<T: DeserializeOwned>(value: &Value) -> Result<T, KeyError> {
    serde_path_to_error::deserialize(value).map_err(|error| KeyError {
        pointer: error.path().iter().map(step).collect(),
        message: in_words(&error.inner().to_string(), "key"),
    })
}

fn step(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        // The name of an enum's variant is a key where it has a value; an unknown place ends the way.
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pool {
        #[serde(rename = "devices")]
        _devices: Vec<Device>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Device {
        #[serde(rename = "size")]
        _size: u32,
    }

    fn pointer(value: Value) -> String {
        read_keys::<Pool>(&value).unwrap_err().pointer
    }

    #[test]
    fn an_error_points_to_the_key_that_is_unknown_wrong_or_missing() {
        assert_eq!(pointer(serde_json::json!({"devices": [{"size": 1}, {"size": "x"}]})), "/devices/1/size");
        assert_eq!(pointer(serde_json::json!({"devices": [{"size": 1, "a/b~c": 1}]})), "/devices/0/a~1b~0c");
        assert_eq!(pointer(serde_json::json!({"devices": [{}]})), "/devices/0");
        assert_eq!(pointer(serde_json::json!({})), "");
    }
}
