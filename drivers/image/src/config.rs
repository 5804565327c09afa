//! The keys of a backend in the configuration.

use std::path::PathBuf;

use dunnage_driver_api::{FsType, KeyError, Overcommit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Volumes that are image files on loop devices.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The folder that holds the images: absolute, and marked as ours by `dunnage init`. A disk of its own is best: what
    /// others write there is room that was promised to volumes.
    #[schemars(extend("pattern" = "^/"))]
    pub(crate) root: PathBuf,
    /// How an image gets its blocks.
    #[serde(default)]
    pub(crate) allocation: Allocation,
    /// How much may be promised to volumes, as a multiple of what the file system can hold. With more than 1 the disk
    /// can fill up while volumes still have room: their writes then fail. Preallocated images allow 1 alone.
    #[serde(default)]
    pub(crate) overcommit: Overcommit,
    /// The file system of a volume whose capability names none. Extra with each volume when it is made.
    #[serde(default = "ext4")]
    pub(crate) fs_type: FsType,
    /// Whether loop devices go past the page cache, where the root's file system can: half the memory and faster
    /// writes.
    #[serde(default = "yes")]
    pub(crate) direct_io: bool,
    /// The logical block size of new volumes in bytes: 4096, with which direct I/O works on every disk, or 512 for
    /// workloads that need it. Extra with each volume when it is made, and never changed.
    #[serde(default)]
    pub(crate) block_size: BlockSize,
}

/// How an image gets its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Allocation {
    /// When they are written first: fast to make, and room is used as it is needed.
    #[default]
    Sparse,
    /// All of them when the volume is made (fallocate): a write to a volume never finds the disk full, but for what a
    /// workload trimmed (`discard`, fstrim), which it gave back.
    Preallocated,
}

/// A logical block size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(with = "u32", extend("enum" = [512, 4096]))]
pub(crate) struct BlockSize(u32);

fn ext4() -> FsType {
    FsType::Ext4
}

fn yes() -> bool {
    true
}

impl Image {
    /// Whether the keys go together.
    ///
    /// # Errors
    /// That which is to go.
    pub(crate) fn keys_together(&self) -> Result<(), KeyError> {
        if self.allocation == Allocation::Preallocated && self.overcommit != Overcommit::default() {
            return Err(KeyError {
                pointer: "/overcommit".into(),
                message: format!(
                    "overcommit {} with allocation preallocated: what is allocated cannot be promised twice, leave \
                     overcommit out",
                    self.overcommit
                ),
            });
        }
        Ok(())
    }
}

impl BlockSize {
    /// In bytes.
    pub(crate) fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self(4096)
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        if matches!(bytes, 512 | 4096) {
            Ok(Self(bytes))
        } else {
            Err(format!("block_size {bytes} is not 512 or 4096"))
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<Image, serde_json::Error> {
        serde_json::from_str(keys)
    }

    #[test]
    fn a_root_is_all_that_must_be_said() {
        let image = read(r#"{"root": "/srv"}"#).unwrap();
        image.keys_together().unwrap();
        assert_eq!((image.allocation, image.fs_type, image.direct_io), (Allocation::Sparse, FsType::Ext4, true));
        assert_eq!((image.overcommit.times(u64::MAX - 1), image.block_size.bytes()), (u64::MAX - 1, 4096));
    }

    #[test]
    fn wrong_keys_are_refused_with_what_is_allowed() {
        for (keys, said) in [
            (r#"{"root": "/srv", "sparse": true}"#, "allocation"),
            (r#"{"root": "/srv", "allocation": "thick"}"#, "preallocated"),
            (r#"{"root": "/srv", "overcommit": 0}"#, "0.01"),
            (r#"{"root": "/srv", "overcommit": 1e9}"#, "1000"),
            (r#"{"root": "/srv", "block_size": 1000}"#, "4096"),
            (r#"{"root": "/srv", "fs_type": "ntfs"}"#, "btrfs"),
        ] {
            let error = read(keys).unwrap_err().to_string();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }

    #[test]
    fn allocated_room_cannot_be_promised_twice() {
        let image = read(r#"{"root": "/srv", "allocation": "preallocated", "overcommit": 2}"#).unwrap();
        let error = image.keys_together().unwrap_err();
        assert!(error.pointer == "/overcommit" && error.message.starts_with("overcommit 2"), "{error:?}");
    }

    #[test]
    fn the_schema_knows_every_key_and_its_limits() {
        let schema = serde_json::to_value(schemars::schema_for!(Image)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"].as_object().unwrap().len(), 6);
        let text = schema.to_string();
        assert!(text.contains("[512,4096]") && text.contains("1000.0"), "{text}");
    }
}
