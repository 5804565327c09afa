//! Requests that no orchestrator should send, over the real socket: each gets the code of the specification and a
//! message with the value and the remedy, and leaves nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod all_rpcs;
mod ids;
mod secrets;
mod sizes;
mod strings;
mod telemetry;

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

    /// A volume of a plugin, and where a test may use it.
    fn volume(&self, client: &Client, name: &str, capability: csi::VolumeCapability) -> Result<Volume> {
        let made = client.create_volume(create(name, 16 * MIB, capability.clone()))?.volume.expect("no volume");
        let stages = std::ptr::eq(client, &self.disks);
        Ok(Volume::new(made, capability, &self.host.setup().scratch().path().join("pods").join(name), stages))
    }
}

/// The rig, where this machine can have it.
fn rig(test: &str) -> Result<Option<Rig>> {
    if can_run(test, &[Need::Root])? { Rig::new().map(Some) } else { Ok(None) }
}

/// Checks that an answer is this code, with all of `words` in its message.
fn refused<T: std::fmt::Debug>(case: &str, answer: Result<T, Status>, code: Code, words: &[&str]) -> Result<()> {
    let status = match answer {
        Ok(answer) => anyhow::bail!("{case}: was answered {answer:?}"),
        Err(status) => status,
    };
    ensure!(status.code() == code, "{case}: {status:?} and not {code:?}");
    for word in words {
        ensure!(status.message().contains(word), "{case}: {word:?} is not in {:?}", status.message());
    }
    ensure!(!status.message().is_empty(), "{case}: says nothing");
    Ok(())
}
