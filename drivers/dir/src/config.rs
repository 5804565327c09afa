//! The values in the configuration that have types of their own.

use dunnage_driver_api::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the size of a volume is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// By a project quota of the file system (ext4 or xfs): nobody writes past it by mistake, and `df` in a pod shows
    /// it. ext4 lets who has CAP_SYS_RESOURCE pass, which only privileged pods have.
    Project,
    /// Not at all: any volume can fill the disk.
    None,
}

/// A range of project ids, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Range", into = "Range")]
#[schemars(with = "Range")]
pub struct ProjectIds {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// A range of project ids, both ends included.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The least id; never 0, which is everybody's.
    first: u32,
    /// The greatest id.
    last: u32,
}

/// Far from what people and the kubelet take.
impl Default for ProjectIds {
    fn default() -> Self {
        Self { first: 1_000_000_000, last: 1_999_999_999 }
    }
}

impl From<ProjectIds> for Range {
    fn from(ProjectIds { first, last }: ProjectIds) -> Self {
        Self { first, last }
    }
}

impl TryFrom<Range> for ProjectIds {
    type Error = Error;

    fn try_from(Range { first, last }: Range) -> Result<Self> {
        if first >= 1 && first <= last && last < u32::MAX {
            return Ok(Self { first, last });
        }
        Err(Error::invalid(format!(
            "project_ids {first} to {last} is no range: want 1 <= first <= last < {}",
            u32::MAX
        )))
    }
}
