//! Drivers that have a configuration and nothing behind it.

use std::path::PathBuf;

use dunnage_driver_api::{Backend, Driver, DriverEntry, Error, Finding, Init, InstanceId, Opening, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Both.
pub(crate) const DRIVERS: &[DriverEntry] = &[DriverEntry::of::<Dir>(), DriverEntry::of::<Image>()];

/// A driver whose root is a folder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dir {
    /// The folder.
    root: PathBuf,
    /// How sizes are kept.
    #[serde(default)]
    #[serde(rename = "quota")]
    _quota: Quota,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Quota {
    #[default]
    Project,
    None,
}

/// Another one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// The folder.
    root: PathBuf,
}

fn mark(root: &std::path::Path) -> Result<Init> {
    let marker = root.join("marker");
    if marker.exists() {
        let instance = std::fs::read_to_string(&marker).unwrap().parse().unwrap();
        return Ok(Init::Existing(instance));
    }
    let instance = InstanceId::random()?;
    std::fs::write(&marker, instance.to_string()).map_err(|error| Error::io("cannot write the marker", error))?;
    Ok(Init::Created(instance))
}

fn look(root: &std::path::Path) -> Vec<Finding> {
    if root.join("marker").exists() {
        return vec![Finding::ok(format!("the root {} is ours", root.display()))];
    }
    vec![Finding::error(format!("the root {} has no marker", root.display()), "run dunnage init")]
}

macro_rules! driver {
    ($type:ident $name:literal) => {
        impl Driver for $type {
            const NAME: &'static str = $name;

            fn init(&self, _: &Opening) -> Result<Init> {
                mark(&self.root)
            }

            fn open(&self, _: &Opening) -> Result<Backend> {
                Err(Error::precondition("there is nothing behind this driver"))
            }

            fn check(&self, _: &Opening) -> Vec<Finding> {
                look(&self.root)
            }
        }
    };
}

driver!(Dir "dir");
driver!(Image "image");
