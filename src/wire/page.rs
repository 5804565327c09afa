//! Pages of a list, and the tokens between them.

use std::fmt;
use std::str::FromStr;

use dunnage_driver_api::{Error, InstanceId, Result};

use super::limits::short;

/// Where a list goes on: after this key, in this instance. It stays right whatever is made or deleted meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token<K> {
    /// The instance that was being listed.
    pub instance: InstanceId,
    /// The last key that was listed.
    pub after: K,
}

impl<K: fmt::Display> fmt::Display for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.after)
    }
}

/// Which entries of a list are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// How many at most; `None` for as many as fit an answer.
    pub max_entries: Option<usize>,
    /// Where to begin: `Err` with the text of a token that we never gave.
    pub start: std::result::Result<Option<Token<K>>, String>,
}

/// The page that a request asks for.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for a negative number of entries. A bad token
/// is no error here, since CSI has a code of its own for it (ABORTED).
pub fn page<K: FromStr>(max_entries: i32, starting_token: &str) -> Result<Page<K>> {
    let max_entries =
        usize::try_from(max_entries).map_err(|_| Error::invalid(format!("max_entries is negative: {max_entries}")))?;
    let parse = || {
        short("starting_token", starting_token).ok()?;
        let (instance, after) = starting_token.split_once('.')?;
        Some(Token { instance: instance.parse().ok()?, after: after.parse().ok()? })
    };
    let start = match starting_token {
        "" => Ok(None),
        text => parse().map(Some).ok_or_else(|| text.chars().take(64).collect()),
    };
    Ok(Page { max_entries: (max_entries > 0).then_some(max_entries), start })
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::VolumeKey;

    use super::*;

    #[test]
    fn a_token_survives_the_wire_and_nonsense_does_not() {
        let token = Token { instance: InstanceId::random().unwrap(), after: VolumeKey::of_name("a.b") };
        assert_eq!(page(0, &token.to_string()).unwrap().start, Ok(Some(token)));
        assert_eq!(
            page::<VolumeKey>(3, "nonsense").unwrap(),
            Page { max_entries: Some(3), start: Err("nonsense".into()) }
        );
        assert!(page::<VolumeKey>(-1, "").is_err());
    }
}
