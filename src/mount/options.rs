//! The words of mount(8), sorted into what one mount can have and what a file system is told.

use std::collections::BTreeMap;
use std::fmt;

use dunnage_driver_api::{Error, Fingerprint, Result};
use linux_raw_sys::general as raw;

/// Mount options as they were asked for: every word is in one of the two parts. Which words a file system knows only
/// the kernel says, when it is mounted. Never shown: CSI allows secrets in them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// What each mount of a file system has for itself.
    pub(super) attributes: Attributes,
    /// What a file system is told when it is mounted first, in the order of the request.
    pub(super) filesystem: Vec<(String, Option<String>)>,
}

/// Attributes of a mount (`MOUNT_ATTR_*`) to set and to clear. A later word wins over an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) set: u64,
    pub(super) clear: u64,
}

impl Attributes {
    fn switch(&mut self, attribute: u32, on: bool) {
        let attribute = u64::from(attribute);
        self.set = if on { self.set | attribute } else { self.set & !attribute };
        self.clear = if on { self.clear & !attribute } else { self.clear | attribute };
    }

    /// The access times are one field of several bits: mount_setattr(2) wants all of it cleared when it is set.
    fn access_time(&mut self, value: u32) {
        self.set = self.set & !u64::from(raw::MOUNT_ATTR__ATIME) | u64::from(value);
        self.clear |= u64::from(raw::MOUNT_ATTR__ATIME);
    }

    /// The same, and read-only.
    #[must_use]
    pub(super) fn read_only(mut self, yes: bool) -> Self {
        if yes {
            self.switch(raw::MOUNT_ATTR_RDONLY, true);
        }
        self
    }

    /// Whether they make a mount read-only.
    pub(super) fn is_read_only(self) -> bool {
        self.set & u64::from(raw::MOUNT_ATTR_RDONLY) != 0
    }

    /// Takes a word of mount(8); `false` where it is none of a mount's own.
    fn take(&mut self, word: &str) -> bool {
        match word {
            "defaults" => {}
            "ro" | "rw" => self.switch(raw::MOUNT_ATTR_RDONLY, word == "ro"),
            "nosuid" | "suid" => self.switch(raw::MOUNT_ATTR_NOSUID, word == "nosuid"),
            "nodev" | "dev" => self.switch(raw::MOUNT_ATTR_NODEV, word == "nodev"),
            "noexec" | "exec" => self.switch(raw::MOUNT_ATTR_NOEXEC, word == "noexec"),
            "nodiratime" | "diratime" => self.switch(raw::MOUNT_ATTR_NODIRATIME, word == "nodiratime"),
            "nosymfollow" | "symfollow" => self.switch(raw::MOUNT_ATTR_NOSYMFOLLOW, word == "nosymfollow"),
            "noatime" => self.access_time(raw::MOUNT_ATTR_NOATIME),
            "relatime" | "atime" => self.access_time(raw::MOUNT_ATTR_RELATIME),
            "strictatime" => self.access_time(raw::MOUNT_ATTR_STRICTATIME),
            _ => return false,
        }
        true
    }
}

impl Options {
    /// Sorts the options of a request. One flag may hold several words with commas between; a value in double quotes
    /// may hold commas itself, as an SELinux context does.
    ///
    /// # Errors
    /// InvalidArgument for a word with a NUL byte, an empty key or an open quote.
    pub(super) fn parse(flags: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for word in flags.iter().map(|flag| split(flag)).collect::<Result<Vec<_>>>()?.concat() {
            if options.attributes.take(&word) {
                continue;
            }
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if key.is_empty() || word.contains('\0') {
                return Err(Error::invalid("a mount option has no name, or a NUL byte in it: correct mount_flags"));
            }
            options.filesystem.push((key.to_owned(), value));
        }
        Ok(options)
    }

    /// Refuses what only a file system could be told, where the file system is not the volume's own.
    ///
    /// # Errors
    /// InvalidArgument that names the option, without its value.
    pub(super) fn of_mount_alone(&self) -> Result<Attributes> {
        match self.filesystem.first() {
            None => Ok(self.attributes),
            Some((key, _)) => Err(Error::invalid(format!(
                "mount option {key:?} is one of a whole file system, and this volume shares its file system with \
                 others: use ro, nosuid, nodev, noexec, noatime, nodiratime, relatime, strictatime or nosymfollow"
            ))),
        }
    }

    /// A digest of what the file system is told: kept instead of the options, which may hold secrets.
    pub(super) fn filesystem_digest(&self) -> Fingerprint {
        Fingerprint::of(
            &self
                .filesystem
                .iter()
                .enumerate()
                .map(|(index, (key, value))| {
                    (format!("{index}.{key}.{}", value.is_some()), value.clone().unwrap_or_default())
                })
                .collect(),
        )
    }

    /// A digest of everything.
    pub(super) fn digest(&self) -> Fingerprint {
        Fingerprint::of(&BTreeMap::from([
            ("attributes".into(), format!("{:x} {:x}", self.attributes.set, self.attributes.clear)),
            ("filesystem".into(), self.filesystem_digest().to_string()),
        ]))
    }
}

/// Says how many there are and not which.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({:?}, {} of the file system)", self.attributes, self.filesystem.len())
    }
}

/// The words of one flag, without the quotes.
fn split(flag: &str) -> Result<Vec<String>> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in flag.chars() {
        match (c, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    if quoted {
        return Err(Error::invalid("a mount option has a double quote that is not closed: correct mount_flags"));
    }
    words.retain(|word| !word.is_empty());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Options {
        Options::parse(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_of_a_mount_become_attributes_and_the_later_one_wins() {
        let options = parse(&["noexec,nosuid", "exec", "noatime", "strictatime", "defaults"]);
        assert_eq!(options.filesystem, []);
        assert_eq!(options.attributes.set, u64::from(raw::MOUNT_ATTR_NOSUID | raw::MOUNT_ATTR_STRICTATIME));
        assert_eq!(options.attributes.clear, u64::from(raw::MOUNT_ATTR_NOEXEC | raw::MOUNT_ATTR__ATIME));
    }

    #[test]
    fn everything_else_reaches_the_file_system_and_commas_in_quotes_stay() {
        let options = parse(&["data=ordered,discard", r#"context="u:o:r:s0:c1,c2""#]);
        let of = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(
            options.filesystem,
            [of("data", Some("ordered")), of("discard", None), of("context", Some("u:o:r:s0:c1,c2"))]
        );
    }

    #[test]
    fn an_option_of_a_file_system_is_refused_for_a_shared_one_without_its_value() {
        let error = parse(&["password=canary"]).of_mount_alone().unwrap_err().to_string();
        assert!(error.contains("\"password\"") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn other_options_have_another_digest_and_no_option_is_shown() {
        assert_ne!(parse(&["a=b"]).digest(), parse(&["a", "b"]).digest());
        assert_ne!(parse(&["ro"]).digest(), parse(&["rw"]).digest());
        assert!(!format!("{:?}", parse(&["password=canary"])).contains("canary"));
    }

    #[test]
    fn broken_options_are_refused() {
        for flag in ["=x", "context=\"open", "a\0b"] {
            assert!(Options::parse(&[flag.to_owned()]).is_err(), "{flag:?}");
        }
    }
}
