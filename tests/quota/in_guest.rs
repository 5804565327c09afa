//! All of it needs a kernel with project quotas.

mod copies;
mod ids;
mod limits;
mod off;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use dunnage_test_common::{Client, Host, Need, Quotas, Setup, Volume, can_run, create, mount, projects, wait_until};
use tonic::Status;

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const FILES: &str = "files.csi.dunnage.dev";
const LIMIT: Duration = Duration::from_secs(60);

/// A host with one backend on a disk of its own.
struct Rig {
    host: Host,
    client: Client,
    quotas: Quotas,
}

/// A host on each of the file systems, with these project ids.
fn each(test: &str, first: u32, last: u32, body: impl Fn(&mut Rig) -> Result<()>) -> Result<()> {
    if !can_run(test, &[Need::Root, Need::Guest, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    for quotas in Quotas::ALL {
        let mut rig = Rig::new(quotas, first, last)?;
        body(&mut rig).with_context(|| format!("on {quotas:?}"))?;
    }
    Ok(())
}

impl Rig {
    fn new(quotas: Quotas, first: u32, last: u32) -> Result<Self> {
        let rest = format!("quota: project\nproject_ids: {{first: {first}, last: {last}}}");
        let setup = Setup::new()?.backend("files", "dir", &rest)?;
        let image = setup.scratch().path().join("disk");
        quotas.mount(&image, &setup.root("files"))?;
        let host = setup.start(DUNNAGE)?;
        Ok(Self { client: host.client(FILES)?, host, quotas })
    }

    fn create(&self, name: &str, bytes: i64) -> Result<Volume, Status> {
        let made = self.client.create_volume(create(name, bytes, mount()))?.volume.expect("no volume");
        Ok(Volume::new(made, mount(), &self.host.setup().scratch().path().join("pods").join(name), false))
    }

    fn published(&self, name: &str, bytes: i64) -> Result<Volume> {
        let volume = self.create(name, bytes)?;
        self.client.node_publish_volume(volume.publish())?;
        Ok(volume)
    }

    fn delete(&self, volume: &Volume) -> Result<()> {
        self.client.delete_volume(volume.delete())?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        self.client = self.host.client(FILES)?;
        Ok(())
    }

    /// Where a volume's files are in the root.
    fn data(&self, name: &str) -> PathBuf {
        self.host.setup().root("files").join("volumes").join(name)
    }

    /// The project of a volume.
    fn project(&self, name: &str) -> Result<u32> {
        project_of(&self.data(name))
    }

    fn wait_for_projects(&self, wanted: &[u32]) -> Result<()> {
        let wanted = BTreeSet::from_iter(wanted.iter().copied());
        let mut seen = BTreeSet::new();
        wait_until("the kernel to forget projects", LIMIT, || {
            seen = projects(&self.host.setup().root("files"))?;
            Ok(seen == wanted)
        })
        .with_context(|| format!("projects: {seen:?}, wanted: {wanted:?}"))
    }
}

/// The project of a file.
fn project_of(path: &Path) -> Result<u32> {
    let output = Command::new("lsattr").arg("-pd").arg(path).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = text.split_whitespace().next().and_then(|id| id.parse().ok());
    id.with_context(|| format!("lsattr names no project of {}: {output:?}", path.display()))
}
