//! Where the data of a volume lies below a folder.

use std::fmt;
use std::io;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Result, VolumeKey};
use serde::{Deserialize, Serialize};

/// More than anybody needs.
const MOST_NAMES: usize = 8;
const LONGEST_NAME: usize = 255;

/// The names on the way to a volume, of which the last is its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct VolumePath(Vec<String>);

impl VolumePath {
    /// A path of names that are letters, digits, `.`, `_` and `-`, and do not begin with a dot.
    ///
    /// # Errors
    /// InvalidArgument for any other.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let is_name = |name: &str| {
            (1..=LONGEST_NAME).contains(&name.len())
                && !name.starts_with('.')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let names: Vec<_> = text.split('/').map(str::to_owned).collect();
        if names.len() <= MOST_NAMES && names.iter().all(|name| is_name(name)) {
            return Ok(Self(names));
        }
        Err(Error::invalid(format!(
            "{text:?} cannot be the folder of a volume: want at most {MOST_NAMES} names with / between, each of letters, \
             digits, `.`, `_` and `-`, and none that begins with a dot"
        )))
    }

    /// That of a volume whose class says nothing of it.
    pub(crate) fn of_key(key: &VolumeKey) -> Self {
        Self(vec![key.as_str().to_owned()])
    }

    /// The same folder under another name, which no volume has.
    pub(crate) fn with_suffix(mut self, suffix: &str) -> Self {
        if let Some(last) = self.0.last_mut() {
            last.truncate(LONGEST_NAME.saturating_sub(suffix.len() + 1));
            last.push('.');
            last.push_str(suffix);
        }
        self
    }

    /// Its own name.
    pub(crate) fn last(&self) -> &str {
        self.0.last().map(String::as_str).unwrap_or_default()
    }

    /// Whether it is `other`, or lies below it.
    pub(crate) fn is_in(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// All that lie above it, the topmost first.
    pub(crate) fn above(&self) -> impl Iterator<Item = Self> {
        (1..self.0.len()).map(|length| Self(self.0[..length].to_vec()))
    }

    /// The folder that it lies in, below `top`.
    ///
    /// # Errors
    /// As openat2(2).
    pub(crate) fn parent(&self, top: &Folder) -> io::Result<Folder> {
        self.walk(top, |folder, name| folder.folder(name))
    }

    /// The same, made where it is missing.
    ///
    /// # Errors
    /// As openat2(2) and mkdirat(2).
    pub(crate) fn make_parent(&self, top: &Folder) -> io::Result<Folder> {
        self.walk(top, |folder, name| folder.folder_or_make(name, 0o755))
    }

    fn walk(&self, top: &Folder, step: impl Fn(&Folder, &str) -> io::Result<Folder>) -> io::Result<Folder> {
        let (_, above) = self.0.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let mut folder = top.reopen()?;
        for name in above {
            folder = step(&folder, name)?;
        }
        Ok(folder)
    }

    /// Whether there is anything of this path below `top`.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub(crate) fn exists(&self, top: &Folder) -> Result<bool> {
        match self.parent(top) {
            Ok(parent) => parent.contains(self.last()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(top.failed("open", self.to_string())(error)),
        }
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl From<VolumePath> for String {
    fn from(path: VolumePath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for VolumePath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}
