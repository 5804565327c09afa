//! What can be wrong with a node: roots, disks, files, sockets, programs. What is wrong is told with its remedy, nothing
//! is half done, and when it is mended the host goes on by itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod devices;
mod disks;
mod health;
mod in_guest;
mod lost;
mod places;
mod reads;
mod roots;
mod state;
mod tools;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Need, Setup, Volume, can_run, create};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
/// The backend with a fault.
const FAULTY: &str = "faulty.csi.dunnage.dev";
/// One beside it, which must not feel it.
const SOUND: &str = "sound.csi.dunnage.dev";

fn needs_root(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root])
}

fn setup(driver: &str, rest: &str) -> Result<Setup> {
    Setup::new()?.backend("faulty", driver, rest)?.backend("sound", "dir", "quota: none")
}

/// A volume that is used below the folder of the test.
fn volume(host: &Host, client: &Client, name: &str, capability: csi::VolumeCapability) -> Result<Volume> {
    let made = client.create_volume(create(name, 16 * MIB, capability.clone()))?.volume.context("no volume")?;
    let stages = host.setup().root("faulty").join("images").exists();
    Ok(Volume::new(made, capability, &host.setup().scratch().path().join("pods").join(name), stages))
}

/// That the faulty backend is reported in these words and has no socket, while the other one works.
fn is_reported(host: &mut Host, words: &[&str]) -> Result<()> {
    host.wait_for(SOUND)?;
    host.wait_for_log("backend is not served; it is tried again backend=faulty")?;
    let log = host.log();
    let line = log.lines().rfind(|line| line.contains("it is tried again backend=faulty")).context("no line")?;
    for word in words {
        ensure!(line.contains(word), "{word:?} is not in {line}");
    }
    ensure!(host.client(FAULTY).is_err(), "a backend that is not there is served");
    host.client(SOUND)?.create_volume(create("a", MIB, dunnage_test_common::mount()))?;
    Ok(())
}

/// Every path below a folder.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}
