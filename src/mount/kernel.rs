//! Versions: of the kernel, and of programs that must fit it.

use std::sync::OnceLock;

use dunnage_driver_api::{Error, Result};

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

/// The first kernel with every call that is used here.
const LEAST: Version = Version(5, 14);

impl Version {
    /// Of the running kernel.
    pub(super) fn running() -> Result<Self> {
        static RUNNING: OnceLock<Option<Version>> = OnceLock::new();
        RUNNING
            .get_or_init(|| Self::first_in(&rustix::system::uname().release().to_string_lossy()))
            .ok_or_else(|| Error::precondition("the release of this kernel is not a version: run Linux 5.14 or later"))
    }

    /// The first `number.number` in a text.
    pub(super) fn first_in(text: &str) -> Option<Self> {
        let number = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        text.match_indices('.').find_map(|(dot, _)| {
            let digits = text[..dot].bytes().rev().take_while(u8::is_ascii_digit).count();
            let after = &text[dot + 1..];
            Some(Self(text[dot - digits..dot].parse().ok()?, after[..number(after)].parse().ok()?))
        })
    }
}

/// Checks that the kernel has what the engine is built on.
///
/// # Errors
/// FailedPrecondition with both versions.
pub(crate) fn check() -> Result<()> {
    let Version(major, minor) = Version::running()?;
    if Version(major, minor) < LEAST {
        return Err(Error::precondition(format!("this kernel is Linux {major}.{minor}: run Linux 5.14 or later")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_in_a_text_is_found() {
        for (text, version) in [
            ("6.18.44-fc-v782", Some(Version(6, 18))),
            ("mke2fs 1.47.0 (5-Feb-2023)", Some(Version(1, 47))),
            ("mkfs.xfs version 6.1.0", Some(Version(6, 1))),
            ("5.15.conf", Some(Version(5, 15))),
            ("none", None),
        ] {
            assert_eq!(Version::first_in(text), version, "{text}");
        }
    }
}
