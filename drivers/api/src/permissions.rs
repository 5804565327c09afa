//! The permissions of a folder, as a configuration or a class says them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The permissions of a folder, octal: at most `3777`. By default everybody may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-3]?[0-7]{3}$"))]
pub struct Permissions(u32);

impl Permissions {
    /// As chmod(2) takes them.
    pub fn bits(self) -> u32 {
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
