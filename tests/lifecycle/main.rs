//! Whole lives of volumes over the real socket: what is repeated, what is asked otherwise, and what is in the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod block;
mod capacity;
mod changed_blocks;
mod copied;
mod ephemeral;
mod fs_group;
mod full;
mod grow;
mod health;
mod held;
mod in_guest;
mod list;
mod modes;
mod places;
mod privileges;
mod readonly;
mod subvolumes;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Need, Setup, Volume, can_run, create};
use tonic::{Code, Status};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const DIR: &str = "files.csi.dunnage.dev";
const IMAGE: &str = "disks.csi.dunnage.dev";

/// A host with both drivers, each behind a name of its own.
struct Rig {
    host: Host,
    files: Client,
    disks: Client,
}

impl Rig {
    fn new() -> Result<Self> {
        let host = Setup::new()?.backend("files", "dir", "quota: none")?.backend("disks", "image", "")?;
        let host = host.start(DUNNAGE)?;
        Ok(Self { files: host.client(DIR)?, disks: host.client(IMAGE)?, host })
    }

    fn volume(&self, client: &Client, name: &str, capability: csi::VolumeCapability) -> Result<Volume> {
        self.sized(client, name, capability, 16 * MIB)
    }

    fn sized(&self, client: &Client, name: &str, capability: csi::VolumeCapability, bytes: i64) -> Result<Volume> {
        let made = client.create_volume(create(name, bytes, capability.clone()))?.volume.expect("no volume");
        let stages = std::ptr::eq(client, &self.disks);
        Ok(Volume::new(made, capability, &self.host.setup().scratch().path().join("pods").join(name), stages))
    }
}

/// The rig, where this machine can have it.
fn rig(test: &str) -> Result<Option<Rig>> {
    if can_run(test, &[Need::Root])? { Rig::new().map(Some) } else { Ok(None) }
}

/// Stages where the plugin wants it, and publishes.
fn bring(client: &Client, volume: &Volume) -> Result<()> {
    if volume.staging.is_some() {
        client.node_stage_volume(volume.stage())?;
    }
    client.node_publish_volume(volume.publish())?;
    Ok(())
}

/// The way back, without the delete.
fn take(client: &Client, volume: &Volume) -> Result<()> {
    client.node_unpublish_volume(volume.unpublish())?;
    if volume.staging.is_some() {
        client.node_unstage_volume(volume.unstage())?;
    }
    Ok(())
}

fn is<T: std::fmt::Debug>(case: &str, answer: Result<T, Status>, code: Code) -> Result<String> {
    match answer {
        Err(status) if status.code() == code => Ok(status.message().to_owned()),
        other => anyhow::bail!("{case}: {other:?} and not {code:?}"),
    }
}

/// The same with another access mode.
fn with_mode(mut capability: csi::VolumeCapability, mode: Mode) -> csi::VolumeCapability {
    capability.access_mode = Some(csi::volume_capability::AccessMode { mode: mode.into() });
    capability
}

use csi::volume_capability::access_mode::Mode;

/// How large the file system at a path is.
fn size_of(path: &std::path::Path) -> Result<u64> {
    let seen = rustix::fs::statvfs(path)?;
    ensure!(seen.f_blocks > 0, "{} has no size", path.display());
    Ok(seen.f_blocks * seen.f_frsize)
}
