//! Promising more than there is.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much may be promised of what there is, as a multiple: greater than 0 and at most 1000.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(with = "f64", extend("minimum" = 0.01, "maximum" = 1000.0))]
pub struct Overcommit(f64);

impl Overcommit {
    /// The multiple of a number of bytes.
    pub fn times(self, bytes: u64) -> u64 {
        // A float holds 2^53 exactly: where nothing is multiplied, nothing is to be lost.
        if self == Self::default() { bytes } else { (bytes as f64 * self.0) as u64 }
    }

    /// Whether more may be promised than there is.
    pub fn is_thin(self) -> bool {
        self.0 > 1.0
    }
}

impl Default for Overcommit {
    fn default() -> Self {
        Self(1.0)
    }
}

impl From<Overcommit> for f64 {
    fn from(overcommit: Overcommit) -> Self {
        overcommit.0
    }
}

impl TryFrom<f64> for Overcommit {
    type Error = String;

    fn try_from(factor: f64) -> Result<Self, String> {
        if (0.01..=1000.0).contains(&factor) {
            return Ok(Self(factor));
        }
        Err(format!("overcommit {factor} is not between 0.01 and 1000"))
    }
}

impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
