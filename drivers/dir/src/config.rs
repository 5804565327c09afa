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

/// The permissions of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-3]?[0-7]{3}$"))]
pub struct Permissions(u32);

impl Permissions {
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Permissions {
    fn default() -> Self {
        Self(0o777)
    }
}

impl From<Permissions> for String {
    fn from(permissions: Permissions) -> Self {
        format!("{:04o}", permissions.0)
    }
}

impl TryFrom<String> for Permissions {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if digits && bits <= 0o3777 => Ok(Self(bits)),
            _ => Err(Error::invalid(format!("mode {text:?} is not 3 or 4 octal digits in quotes, as in \"0777\""))),
        }
    }
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
