//! What a snapshot, and a group of them, is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ForeignId, Generation, InstanceId, VolumeKey};
use crate::error::{Error, Result};

/// What a snapshot is found by in its instance: made from the name in CreateSnapshot, by the rules of a [`VolumeKey`].
/// Names of snapshots and of volumes are apart: a snapshot and a volume may have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotKey(VolumeKey);

impl SnapshotKey {
    /// The key of a requested name.
    pub fn of_name(name: &str) -> Self {
        Self(VolumeKey::of_name(name))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same text as a key of the folder that keeps the records of snapshots.
    pub(crate) fn in_records(&self) -> &VolumeKey {
        &self.0
    }

    /// A key that [`in_records`](Self::in_records) gave.
    pub(crate) fn of_records(key: VolumeKey) -> Self {
        Self(key)
    }
}

impl FromStr for SnapshotKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! id {
    ($(#[$document:meta])* $name:ident, $prefix:literal) => {
        $(#[$document])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// The store it lives in.
            pub instance: InstanceId,
            /// What it is found by there.
            pub key: SnapshotKey,
            /// Which of those that bore the key.
            pub generation: Generation,
        }

        impl FromStr for $name {
            type Err = ForeignId;

            fn from_str(text: &str) -> Result<Self, ForeignId> {
                let parts = || {
                    let (instance, rest) = text.strip_prefix($prefix)?.split_once('.')?;
                    let (key, generation) = rest.rsplit_once('.')?;
                    Some(Self {
                        instance: instance.parse().ok()?,
                        key: key.parse().ok()?,
                        generation: generation.parse().ok()?,
                    })
                };
                parts().ok_or_else(|| ForeignId(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}.{}.{}"), self.instance, self.key, self.generation)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ForeignId;

            fn try_from(text: String) -> Result<Self, ForeignId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id! {
    /// The id of a snapshot as CSI carries it: `s.<instance>.<key>.<generation>`, 108 bytes at most. No text is the id of
    /// a volume and of a snapshot.
    SnapshotId, "s."
}

id! {
    /// The id of a group of snapshots as CSI carries it: `g.<instance>.<key>.<generation>`, 108 bytes at most.
    GroupSnapshotId, "g."
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::VolumeId;

    #[test]
    fn the_text_is_frozen() {
        let id = SnapshotId {
            instance: "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap(),
            key: SnapshotKey::of_name("snapshot-1.2"),
            generation: Generation::from_uuid([7; 16]),
        };
        assert_eq!(id.to_string(), "s.mzxw6ytboimzxw6ytboimzxw6y.snapshot-1.2.a4dqobyha4dqobyha4dqobyha4");
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
        let SnapshotId { instance, key, generation } = id;
        let group = GroupSnapshotId { instance, key, generation };
        assert_eq!(group.to_string(), "g.mzxw6ytboimzxw6ytboimzxw6y.snapshot-1.2.a4dqobyha4dqobyha4dqobyha4");
    }

    #[test]
    fn the_longest_id_fits_the_128_bytes_of_csi() {
        const { assert!(2 + InstanceId::LENGTH + 1 + VolumeKey::MAX_LENGTH + 1 + Generation::MAX_LENGTH <= 128) };
    }

    proptest! {
        #[test]
        fn no_text_is_the_id_of_a_volume_and_of_a_snapshot(
            text in "([sg]\\.){0,2}[a-z2-7]{26}\\.[a-z0-9.+-]{1,60}\\.[a-z2-7]{1,30}|\\PC{0,130}",
        ) {
            if let Ok(id) = text.parse::<SnapshotId>() {
                prop_assert!(text.parse::<VolumeId>().is_err() && text.parse::<GroupSnapshotId>().is_err());
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
