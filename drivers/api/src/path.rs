//! Paths that an orchestrator names on this node.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::Quoted;

/// The longest path the kernel takes, in bytes, without the closing NUL.
const PATH_MAX: usize = 4095;
/// The longest name of a file or folder.
const NAME_MAX: usize = 255;

fn absolute(field: &str, text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    let wrong = if text.len() > PATH_MAX {
        "is longer than 4095 bytes: give a shorter path"
    } else if !path.is_absolute() {
        "is not absolute: give an absolute path"
    } else if text.contains('\0') {
        "has a NUL byte: no path can"
    } else if path.components().any(|component| component.as_os_str().len() > NAME_MAX) {
        "has a name in it that is longer than 255 bytes: give a shorter one"
    } else if path.components().any(|component| component == Component::ParentDir) {
        "has a .. in it: give an absolute path without"
    } else if path.parent().is_none() {
        "is the root folder: give a path below it"
    } else {
        // Collected anew, so that `//` and `/./` and a slash at the end make no second name for one place.
        return Ok(path.components().collect());
    };
    Err(Error::invalid(format!("{field} {} {wrong}", Quoted(text))))
}

macro_rules! node_path {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(PathBuf);

        impl $name {
            /// The path of a request: absolute, without `..` or NUL, not `/`.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) that says what is wrong with it.
            pub fn new(text: &str) -> Result<Self> {
                absolute($field, text).map(Self)
            }

            /// The path, absolute in the mount namespace of the host.
            pub fn as_path(&self) -> &Path {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(&text)
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.display().fmt(f)
            }
        }
    };
}

node_path!(
    /// Where a volume is staged, once a node (CSI staging_target_path).
    StagingPath,
    "staging_target_path"
);
node_path!(
    /// Where a volume is published, once a workload (CSI target_path).
    TargetPath,
    "target_path"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb_or_hide_are_refused_with_the_reason() {
        for (text, reason) in
            [("a/b", "absolute"), ("/a/../b", ".."), ("/a\0b", "NUL"), ("/", "root folder"), ("", "absolute")]
        {
            let error = TargetPath::new(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_the_kernel_takes_no_path_of_is_refused_before_it_is_asked() {
        let name = "n".repeat(255);
        let longest = format!("/{name}").repeat(15) + "/" + &"n".repeat(254);
        assert_eq!(longest.len(), 4095);
        TargetPath::new(&longest).unwrap();
        for (text, reason) in [(format!("{longest}n"), "4095"), (format!("/a/{name}n/b"), "255")] {
            let error = TargetPath::new(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn one_place_has_one_name() {
        assert_eq!(TargetPath::new("/a//b/./c/").unwrap(), TargetPath::new("/a/b/c").unwrap());
    }
}
