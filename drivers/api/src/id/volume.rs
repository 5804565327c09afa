//! The id that an orchestrator keeps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Generation, InstanceId, VolumeKey};
use crate::text::Quoted;

/// The id of a volume as CSI carries it: `<instance>.<key>.<generation>`, 106 bytes at most, of which CSI allows 128.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId {
    /// The store it lives in.
    pub instance: InstanceId,
    /// What it is found by there.
    pub key: VolumeKey,
    /// Which of those that bore the key.
    pub generation: Generation,
}

/// An id of a form that we never made: such a volume does not exist here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no id of a volume made here", Quoted(.0))]
pub struct ForeignId(pub String);

impl FromStr for VolumeId {
    type Err = ForeignId;

    fn from_str(text: &str) -> Result<Self, ForeignId> {
        let parts = || {
            let (instance, rest) = text.split_once('.')?;
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

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.instance, self.key, self.generation)
    }
}

impl TryFrom<String> for VolumeId {
    type Error = ForeignId;

    fn try_from(text: String) -> Result<Self, ForeignId> {
        text.parse()
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_frozen() {
        let id = VolumeId {
            instance: "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap(),
            key: VolumeKey::of_name("pvc-1.2"),
            generation: Generation::from_uuid([7; 16]),
        };
        assert_eq!(id.to_string(), "mzxw6ytboimzxw6ytboimzxw6y.pvc-1.2.a4dqobyha4dqobyha4dqobyha4");
        assert_eq!(VolumeKey::of_name("../Ä B").as_str(), "x.____+hszfsnpwicbzk7gbuincmqwtg5wbas25");
        assert_eq!(id.to_string().parse::<VolumeId>().unwrap(), id);
    }

    #[test]
    fn the_longest_id_fits_the_128_bytes_of_csi() {
        const { assert!(InstanceId::LENGTH + 1 + VolumeKey::MAX_LENGTH + 1 + Generation::MAX_LENGTH <= 128) };
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_the_same(text in "[a-z2-7]{26}\\.[a-z0-9.+-]{1,60}\\.[a-z2-7]{1,30}|\\PC{0,130}") {
            if let Ok(id) = text.parse::<VolumeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
