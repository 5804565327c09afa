//! The keys of a backend in the configuration, and the parameters of its classes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Volumes that are subvolumes of a btrfs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Btrfs {
    /// The folder that holds everything: absolute, on a btrfs, and empty when it is first used. Best the top of a file
    /// system of its own.
    #[schemars(extend("pattern" = "^/"))]
    pub(crate) root: PathBuf,
    /// How the size of a volume is enforced.
    #[serde(default)]
    pub(crate) quota: Quota,
}

/// How the size of a volume is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Quota {
    /// By the quotas that are enabled on the file system, of either kind. `dunnage init` enables them on a new file
    /// system whose top is the root: simple ones where the kernel has them, else full ones.
    #[default]
    Auto,
    /// By simple quotas (Linux 6.7): what a volume wrote is counted for it for as long as a snapshot keeps it. They cost
    /// next to nothing.
    Simple,
    /// By full quotas: what a volume has now is counted for it. The more snapshots, the slower.
    Full,
    /// Not at all: any volume can fill the disk.
    None,
}

/// What a class may say of a volume, when it is made and later: files get it when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attributes {
    /// How new files are compressed. Without it they are as the file system is mounted, or as the volume is that this
    /// one is a copy of.
    pub(crate) compression: Option<Compression>,
    /// Whether new files are overwritten in place, without checksums and compression, as databases and disk images may
    /// want it.
    pub(crate) nodatacow: Option<bool>,
}

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Never, whatever the file system is mounted with.
    None,
    /// zlib: slow, and small.
    Zlib,
    /// LZO: fast.
    Lzo,
    /// Zstandard: fast, and small.
    Zstd,
}

impl Compression {
    /// As the kernel writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Lzo => "lzo",
            Self::Zstd => "zstd",
        }
    }
}

impl Attributes {
    /// These, and of `class` what they leave open.
    pub(crate) fn or(self, class: Self) -> Self {
        Self { compression: self.compression.or(class.compression), nodatacow: self.nodatacow.or(class.nodatacow) }
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Parameters;

    use super::*;

    #[test]
    fn a_root_is_all_that_must_be_said() {
        let btrfs: Btrfs = serde_json::from_str(r#"{"root": "/srv"}"#).unwrap();
        assert_eq!(btrfs.quota, Quota::Auto);
        for wrong in [r#"{"root": "/srv", "quota": "project"}"#, r#"{"root": "/srv", "mode": "0777"}"#, "{}"] {
            serde_json::from_str::<Btrfs>(wrong).unwrap_err();
        }
    }

    #[test]
    fn parameters_are_read_and_what_is_unknown_is_refused() {
        let parse = |name: &str, value: &str| {
            Parameters::new([(name.to_owned(), value.to_owned())].into()).parse::<Attributes>()
        };
        assert_eq!(parse("compression", "zstd").unwrap().compression, Some(Compression::Zstd));
        assert_eq!(parse("nodatacow", "true").unwrap().nodatacow, Some(true));
        for (name, value) in [("compression", "gzip"), ("nodatacow", "yes"), ("compress", "zstd")] {
            parse(name, value).unwrap_err();
        }
    }
}
