//! A store that does not answer: what is asked of it is answered in time, what it began goes on, and nobody else feels it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dead;
mod dying;
mod late;
mod slow;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Volume, create, mount};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");

/// The CSI name of a backend.
fn name(backend: &str) -> String {
    format!("{backend}.csi.dunnage.dev")
}

/// A volume of a backend of directories.
fn volume(host: &Host, client: &Client, name: &str) -> Result<Volume> {
    let made: csi::Volume = client.create_volume(create(name, MIB, mount()))?.volume.context("no volume")?;
    Ok(Volume::new(made, mount(), &host.setup().scratch().path().join("pods").join(name), false))
}

/// A whole life on a backend of directories.
fn live(host: &Host, client: &Client, name: &str) -> Result<()> {
    let volume = volume(host, client, name)?;
    client.node_publish_volume(volume.publish())?;
    std::fs::write(volume.target.join("data"), "data")?;
    ensure!(!client.node_get_volume_stats(volume.stats())?.usage.is_empty(), "no usage");
    client.node_unpublish_volume(volume.unpublish())?;
    client.delete_volume(volume.delete())?;
    Ok(())
}
