//! The keys of a backend in the configuration.

use dunnage_driver_api::{FsType, KeyError, Overcommit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name;

/// Volumes that are logical volumes of an LVM volume group.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lvm {
    /// The volume group, marked as ours by `dunnage init` while it is empty.
    #[schemars(extend("pattern" = "^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$"))]
    pub(crate) vg: String,
    /// All physical volumes of the group, as absolute paths of devices: LVM looks at these and at no other disk of the
    /// node. A name that drifts does no harm, since LVM knows a disk by what is on it.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) devices: Vec<String>,
    /// Whether a volume gets its extents when it is made (`thick`) or as they are written (`thin`). Thin volumes have
    /// snapshots and clones. Kept with the group by `dunnage init`, and never changed.
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// The thin pool of the volumes, which is made by an admin. For `type: thin` alone, and needed there.
    pub(crate) pool: Option<String>,
    /// What is done with the extents of a thick volume before anybody sees them. For `type: thick` alone.
    pub(crate) wipe: Option<Wipe>,
    /// How much may be promised to thin volumes and their snapshots, as a multiple of the pool's size. With more than 1 the
    /// pool can fill up while volumes still have room: their writes then fail. For `type: thin` alone.
    pub(crate) overcommit: Option<Overcommit>,
    /// How full the pool may be when a volume or a snapshot is made or grows. For `type: thin` alone.
    pub(crate) watermarks: Option<Watermarks>,
    /// The file system of a volume whose capability names none. Kept with each volume when it is made.
    #[serde(default = "ext4")]
    pub(crate) fs_type: FsType,
}

/// When a volume gets its extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// When it is made.
    Thick,
    /// When they are written first.
    Thin,
}

/// What is done with extents that may hold what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wipe {
    /// All of them are zeroed, by the disk itself where it can: a new volume takes as long as that takes.
    #[default]
    Zero,
    /// Only the places where file systems and partition tables have their marks are zeroed. There are no raw block volumes
    /// then: a file system alone keeps a workload from what is left on the disk.
    None,
}

/// How full a thin pool may be, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Watermarks {
    /// Of the data.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) data: u8,
    /// Of the metadata, which cannot be had back when it runs out.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) metadata: u8,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { data: 95, metadata: 80 }
    }
}

fn ext4() -> FsType {
    FsType::Ext4
}

fn wrong(key: &str, message: String) -> KeyError {
    KeyError { pointer: format!("/{key}"), message }
}

impl Lvm {
    /// Whether the keys go together.
    ///
    /// # Errors
    /// What is wrong, and the key.
    pub(crate) fn keys_together(&self) -> Result<(), KeyError> {
        name::check_group(&self.vg).map_err(|message| wrong("vg", message))?;
        if self.devices.is_empty() {
            return Err(wrong("devices", "devices is empty: list every physical volume of the group".into()));
        }
        if let Some(index) = self.devices.iter().position(|path| !path.starts_with("/dev/") || path.contains(',')) {
            let path = &self.devices[index];
            let message = format!("device {path:?} is not an absolute path beneath /dev, without commas");
            return Err(wrong(&format!("devices/{index}"), message));
        }
        match (self.kind, &self.pool) {
            (Kind::Thin, None) => return Err(wrong("type", "type thin needs a pool: name it in the key pool".into())),
            (Kind::Thin, Some(pool)) => name::check_pool(pool).map_err(|message| wrong("pool", message))?,
            (Kind::Thick, _) => {}
        }
        let thin_only = [
            ("pool", self.pool.is_some()),
            ("overcommit", self.overcommit.is_some()),
            ("watermarks", self.watermarks.is_some()),
        ];
        let foreign: &[(&str, bool)] =
            if self.kind == Kind::Thin { &[("wipe", self.wipe.is_some())] } else { &thin_only };
        if let Some((key, _)) = foreign.iter().find(|(_, is_set)| *is_set) {
            return Err(wrong(key, format!("{key} has no meaning with type {}: leave it out", self.kind.as_str())));
        }
        let Watermarks { data, metadata } = self.watermarks();
        for (key, percent) in [("data", data), ("metadata", metadata)] {
            if !(1..=100).contains(&percent) {
                return Err(wrong(
                    &format!("watermarks/{key}"),
                    format!("{percent} is not a percentage from 1 to 100"),
                ));
            }
        }
        Ok(())
    }

    /// The pool of a thin backend.
    pub(crate) fn pool(&self) -> Option<&str> {
        self.pool.as_deref().filter(|_| self.kind == Kind::Thin)
    }

    pub(crate) fn wipe(&self) -> Wipe {
        self.wipe.unwrap_or_default()
    }

    pub(crate) fn overcommit(&self) -> Overcommit {
        self.overcommit.unwrap_or_default()
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.watermarks.unwrap_or_default()
    }

    /// Whether no byte of anybody else's can be read from the raw device of a volume.
    pub(crate) fn hides_all(&self) -> bool {
        self.kind == Kind::Thin || self.wipe() == Wipe::Zero
    }
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Thick => "thick",
            Self::Thin => "thin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<Lvm, String> {
        let config: Lvm = serde_json::from_str(keys).map_err(|error| error.to_string())?;
        config.keys_together().map_err(|error| format!("{} {}", error.pointer, error.message))?;
        Ok(config)
    }

    #[test]
    fn the_group_its_devices_and_its_type_are_all_that_must_be_said() {
        let thick = read(r#"{"vg": "vg", "devices": ["/dev/sdb"], "type": "thick"}"#).unwrap();
        assert_eq!((thick.fs_type, thick.wipe(), thick.hides_all()), (FsType::Ext4, Wipe::Zero, true));
        let thin = read(r#"{"vg": "vg", "devices": ["/dev/sdb"], "type": "thin", "pool": "pool"}"#).unwrap();
        assert_eq!((thin.watermarks().data, thin.watermarks().metadata, thin.pool()), (95, 80, Some("pool")));
    }

    #[test]
    fn wrong_keys_are_refused_with_the_key() {
        for (keys, said) in [
            (r#""devices": ["/dev/sdb"], "type": "thin""#, "/type type thin needs a pool"),
            (r#""devices": [], "type": "thick""#, "/devices devices is empty"),
            (r#""devices": ["/dev/sdb", "sdc"], "type": "thick""#, "/devices/1 device \"sdc\""),
            (r#""devices": ["/dev/a,/dev/b"], "type": "thick""#, "without commas"),
            (r#""devices": ["/dev/sdb"], "type": "thick", "pool": "p""#, "/pool pool has no meaning"),
            (r#""devices": ["/dev/sdb"], "type": "thick", "overcommit": 2"#, "/overcommit "),
            (r#""devices": ["/dev/sdb"], "type": "thin", "pool": "p", "wipe": "zero""#, "/wipe "),
            (r#""devices": ["/dev/sdb"], "type": "thin", "pool": "vol-1""#, "/pool "),
            (
                r#""devices": ["/dev/sdb"], "type": "thin", "pool": "p", "watermarks": {"data": 0}"#,
                "/watermarks/data 0",
            ),
            (r#""devices": ["/dev/sdb"], "type": "thick", "wipe": "discard""#, "`zero` or `none`"),
            (r#""devices": ["/dev/sdb"], "type": "fat""#, "`thick` or `thin`"),
        ] {
            let error = read(&format!(r#"{{"vg": "vg", {keys}}}"#)).unwrap_err();
            assert!(error.contains(said), "{keys}: {error}");
        }
        for vg in ["", "-vg", "a/b", "a b", "..", "a-very-long-name-of-a-group-with-hyphens-in-it"] {
            let error = read(&format!(r#"{{"vg": "{vg}", "devices": ["/dev/sdb"], "type": "thick"}}"#)).unwrap_err();
            assert!(error.starts_with("/vg "), "{vg}: {error}");
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(Lvm)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"].as_object().unwrap().len(), 8);
    }
}
