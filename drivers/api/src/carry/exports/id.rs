//! The name of an export.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::id::{Generation, VolumeId};

/// The name of an export: of which volume, and for which of its attachments. As text `<volume>.<word>`, 133 bytes at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportId {
    /// The volume.
    pub volume: VolumeId,
    /// The [word](crate::Attachment::word) of the attachment.
    pub word: Generation,
}

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.volume, self.word)
    }
}

impl FromStr for ExportId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('.').and_then(|(volume, word)| Some((volume.parse().ok()?, word.parse().ok()?)));
        let (volume, word) = parts.ok_or_else(|| Error::invalid(format!("{text:?} is no name of an export")))?;
        Ok(Self { volume, word })
    }
}
