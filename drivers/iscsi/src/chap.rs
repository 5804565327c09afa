//! The credentials of CHAP, from the secrets of a request.

use std::fmt;

use dunnage_driver_api::{Error, Result, Secrets};
use serde::{Deserialize, Serialize};

/// The keys of the secret.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
/// What open-iscsi and LIO both take.
const LONGEST: usize = 255;
/// Below this other initiators refuse it (RFC 7143, 9.2.1).
const SHORTEST: usize = 12;

/// A name and a password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chap {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chap(<redacted>)")
    }
}

impl Chap {
    /// Those of a request; `None` where it brings no secrets.
    ///
    /// # Errors
    /// `InvalidArgument` where one of the two is missing, or is of a form that a target or an initiator would cut.
    pub(crate) fn of(secrets: &Secrets) -> Result<Option<Self>> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let field = |key: &str, least: usize| {
            let value = secrets.get(key).ok_or_else(|| {
                Error::invalid(format!("the secret has no {key:?}: CHAP needs {USERNAME:?} and {PASSWORD:?}"))
            })?;
            let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_plain || !(least..=LONGEST).contains(&value.len()) {
                return Err(Error::invalid(format!(
                    "{key:?} of the secret must be {least} to {LONGEST} visible ASCII characters without blanks"
                )));
            }
            Ok(value.to_owned())
        };
        Ok(Some(Self { username: field(USERNAME, 1)?, password: field(PASSWORD, SHORTEST)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_needed_and_neither_is_shown() {
        let whole = Chap::of(&Secrets::from_iter([(USERNAME, "node"), (PASSWORD, "correct-horse")])).unwrap().unwrap();
        assert_eq!((whole.username.as_str(), whole.password.as_str()), ("node", "correct-horse"));
        assert!(!format!("{whole:?}").contains("horse"));
        assert_eq!(Chap::of(&Secrets::default()).unwrap(), None);
        for pairs in [
            &[(USERNAME, "node")][..],
            &[(PASSWORD, "correct-horse")],
            &[(USERNAME, "node"), (PASSWORD, "short-one")],
            &[(USERNAME, "node"), (PASSWORD, "with a blank in it")],
            &[(USERNAME, "node"), (PASSWORD, "with-a-line\nbreak")],
            &[(USERNAME, ""), (PASSWORD, "correct-horse")],
        ] {
            let error = Chap::of(&Secrets::from_iter(pairs.iter().copied())).unwrap_err().report();
            assert!(!error.contains("horse") && !error.contains("short-one") && !error.contains("blank in"), "{error}");
        }
    }
}
