//! The keys of a backend in the configuration.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dunnage_driver_api::{Bytes, FsType, KeyError};
use glob::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// Volumes that are whole disks and partitions of a node.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The folder that keeps which disk is which volume's: absolute, on a disk that lasts, and marked as ours by `dunnage
    /// init`. It holds a small file for each volume, and no data.
    #[schemars(extend("pattern" = "^/"))]
    pub(crate) root: PathBuf,
    /// Which disks and partitions may become volumes: paths beneath `/dev`, with `*`, `?` and `[...]` where several are
    /// meant. Names that stay the same are best, as those in `/dev/disk/by-id`. What carries anything, is in use, or has no
    /// identity of its own is left alone, whatever is listed here.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) devices: Vec<String>,
    /// Whether partitions that are named may become volumes too: names in `/dev/disk/by-id` with a `*` mean the partitions of
    /// each disk as well.
    #[serde(default)]
    pub(crate) partitions: bool,
    /// How large they must be and may be; those of any size unless said.
    #[serde(default)]
    pub(crate) size: Size,
    /// Only disks that rotate (`true`), or only those that do not (`false`); both unless said.
    pub(crate) rotational: Option<bool>,
    /// What is done with a disk when its volume was deleted, before another gets it.
    #[serde(default)]
    pub(crate) wipe: Wipe,
    /// The file system of a volume whose capability names none. Kept with each volume when it is made.
    #[serde(default = "ext4")]
    pub(crate) fs_type: FsType,
    /// The store that this configuration has opened.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) opened: Opened,
}

/// The store that a configuration has opened, while it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<Weak<Store>>>);

impl Opened {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Weak<Store>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How large the disks of a backend must be and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Size {
    /// At least this.
    pub(crate) min: Option<Bytes>,
    /// At most this.
    pub(crate) max: Option<Bytes>,
}

/// What is done with a disk whose volume was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wipe {
    /// Every byte of it is zeroed, by the disk itself where it can.
    #[default]
    Zero,
    /// All of it is discarded, and the places where file systems and partition tables have their marks are zeroed. A disk
    /// need not forget what was discarded: there are no raw block volumes then.
    Discard,
    /// Only the places of such marks are zeroed. There are no raw block volumes then: a file system alone keeps a workload
    /// from what is left on the disk.
    Signatures,
}

fn ext4() -> FsType {
    FsType::Ext4
}

impl Disk {
    /// Whether the keys go together.
    ///
    /// # Errors
    /// What is wrong, and the key.
    pub(crate) fn keys_together(&self) -> Result<(), KeyError> {
        let wrong = |key: &str, message: String| Err(KeyError { pointer: format!("/{key}"), message });
        if self.devices.is_empty() {
            return wrong("devices", "devices is empty: list the disks, as /dev/disk/by-id/nvme-*".into());
        }
        for (index, pattern) in self.devices.iter().enumerate() {
            let key = format!("devices/{index}");
            if !pattern.starts_with("/dev/") || pattern.split('/').any(|part| part == "..") {
                return wrong(&key, format!("device {pattern:?} is not an absolute path beneath /dev"));
            }
            if let Err(error) = Pattern::new(pattern) {
                return wrong(&key, format!("device {pattern:?} is no pattern: {}", error.msg));
            }
        }
        if let (Some(min), Some(max)) = (self.size.min, self.size.max)
            && max < min
        {
            return wrong("size/max", format!("size.max {max} is below size.min {min}: no disk can be both"));
        }
        Ok(())
    }

    /// Whether nobody can read what another volume has left on a disk.
    pub(crate) fn hides_all(&self) -> bool {
        self.wipe == Wipe::Zero
    }
}

impl Size {
    /// Whether a disk of this many bytes is meant.
    pub(crate) fn holds(self, bytes: u64) -> bool {
        self.min.is_none_or(|min| bytes >= min.get()) && self.max.is_none_or(|max| bytes <= max.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<Disk, String> {
        let config: Disk = serde_json::from_str(keys).map_err(|error| error.to_string())?;
        config.keys_together().map_err(|error| format!("{} {}", error.pointer, error.message))?;
        Ok(config)
    }

    #[test]
    fn a_root_and_devices_are_all_that_must_be_said() {
        let disk = read(r#"{"root": "/srv", "devices": ["/dev/disk/by-id/nvme-*"]}"#).unwrap();
        assert_eq!(
            (disk.wipe, disk.fs_type, disk.rotational, disk.hides_all()),
            (Wipe::Zero, FsType::Ext4, None, true)
        );
        assert!(disk.size.holds(1) && disk.size.holds(u64::MAX));
    }

    #[test]
    fn wrong_keys_are_refused_with_the_key() {
        for (keys, said) in [
            (r#""devices": []"#, "/devices devices is empty"),
            (r#""devices": ["/dev/sda", "sdb"]"#, "/devices/1 device \"sdb\""),
            (r#""devices": ["/dev/../etc"]"#, "/devices/0"),
            (r#""devices": ["/dev/sd[a"]"#, "/devices/0 device \"/dev/sd[a\" is no pattern"),
            (r#""devices": ["/dev/sda"], "size": {"min": "2GiB", "max": "1GiB"}"#, "/size/max size.max 1 GiB"),
            (r#""devices": ["/dev/sda"], "wipe": "none""#, "`signatures`"),
            (r#""devices": ["/dev/sda"], "size": {"least": 1}"#, "least"),
        ] {
            let error = read(&format!(r#"{{"root": "/srv", {keys}}}"#)).unwrap_err();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(Disk)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"].as_object().unwrap().len(), 7);
    }
}
