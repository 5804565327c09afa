//! Lives of volumes in which the host is killed again and again.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Client, Fault, Host, MIB, Setup, Volume, create, expand, loop_devices_beneath, mounts_beneath, wait_until,
};
use tonic::Status;

use crate::killer::{Nth, kill_at};

pub(crate) const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where in a life the host is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// After each call that was answered.
    Between,
    /// Within each call, at this system call.
    Within(Nth),
}

/// A host with one backend, and what of it must be there again after each life.
pub(crate) struct Rig {
    host: Host,
    client: Client,
    driver: String,
    csi_name: &'static str,
    capability: csi::VolumeCapability,
    bytes: i64,
    untouched: BTreeSet<PathBuf>,
    /// Of the test's own: the disk of its root.
    mounts: Vec<PathBuf>,
    loop_devices: Vec<PathBuf>,
    kills: usize,
}

impl Rig {
    /// A host with a backend of this driver, whose volumes have `mebibytes` and are used so.
    pub(crate) fn new(driver: &str, rest: &str, capability: csi::VolumeCapability, mebibytes: i64) -> Result<Self> {
        Self::on(driver, Setup::new()?.backend("a", driver, rest)?, capability, mebibytes)
    }

    /// The same with a root that the caller has prepared; the backend is `a`.
    pub(crate) fn on(driver: &str, setup: Setup, capability: csi::VolumeCapability, mebibytes: i64) -> Result<Self> {
        let host = setup.start(DUNNAGE)?;
        let csi_name = "a.csi.dunnage.dev";
        let client = host.client(csi_name)?.under(driver, Fault::Killed);
        let bytes = mebibytes * MIB;
        let folder = host.setup().scratch().path();
        let (mounts, loop_devices) = (mounts_beneath(folder)?, loop_devices_beneath(folder));
        let untouched = BTreeSet::new();
        let (driver, kills) = (driver.to_owned(), 0);
        let mut rig =
            Self { host, client, driver, csi_name, capability, bytes, untouched, mounts, loop_devices, kills };
        rig.untouched = rig.inventory()?;
        Ok(rig)
    }

    /// One life of a volume with every call that changes it, each repeated after the host was killed. Answers how often
    /// that was.
    pub(crate) fn life(&mut self, kill: Kill) -> Result<usize> {
        self.kills = 0;
        let mut volume = self.make(kill)?;
        if volume.staging.is_some() {
            self.call("stage", kill, |client| client.node_stage_volume(volume.stage()))?;
        }
        self.call("publish", kill, |client| client.node_publish_volume(volume.publish()))?;
        self.write(&volume)?;
        let request = expand(&volume.id(), 2 * self.bytes);
        let grown = self.call("expand", kill, |client| client.controller_expand_volume(request.clone()))?;
        ensure!(grown.capacity_bytes == 2 * self.bytes, "grown to {}", grown.capacity_bytes);
        if grown.node_expansion_required {
            let request = volume.expand_on_node(2 * self.bytes);
            self.call("expand on the node", kill, |client| client.node_expand_volume(request.clone()))?;
        }
        self.read(&volume)?;
        self.call("unpublish", kill, |client| client.node_unpublish_volume(volume.unpublish()))?;
        if volume.staging.is_some() {
            self.call("unstage", kill, |client| client.node_unstage_volume(volume.unstage()))?;
            self.call("stage again", kill, |client| client.node_stage_volume(volume.stage()))?;
        }
        volume.target.set_file_name("elsewhere");
        self.call("publish again", kill, |client| client.node_publish_volume(volume.publish()))?;
        self.read(&volume)?;
        self.end(&volume, kill)?;
        Ok(self.kills)
    }

    /// A life without any use. Answers how often the host was killed.
    pub(crate) fn unused(&mut self, kill: Kill) -> Result<usize> {
        self.kills = 0;
        let volume = self.make(kill)?;
        self.call("delete", kill, |client| client.delete_volume(volume.delete()))?;
        self.nothing_is_left()?;
        Ok(self.kills)
    }

    /// A life that is given up after a kill in the call that brings the volume to the node: no retry, but the way back.
    /// Answers whether the call was killed.
    pub(crate) fn given_up(&mut self, nth: Nth) -> Result<bool> {
        self.kills = 0;
        let volume = self.make(Kill::Between)?;
        let requests = [volume.staging.is_some(), true];
        for is_stage in [true, false].into_iter().zip(requests).filter_map(|(stage, wanted)| wanted.then_some(stage)) {
            let (stage, publish) = (volume.stage(), volume.publish());
            let killed = self.killed_in(nth, |client| match is_stage {
                true => client.node_stage_volume(stage.clone()).map(drop),
                false => client.node_publish_volume(publish.clone()).map(drop),
            })?;
            if killed.is_none() {
                self.end(&volume, Kill::Between)?;
                return Ok(true);
            }
        }
        self.end(&volume, Kill::Between)?;
        Ok(false)
    }

    /// A DeleteVolume that is killed and not repeated, and then a CreateVolume of the same name: it must make a volume
    /// that can be used and has nothing of the old one in it. Answers whether the call was killed.
    pub(crate) fn made_anew(&mut self, nth: Nth) -> Result<bool> {
        self.kills = 0;
        let old = self.make(Kill::Between)?;
        self.bring(&old)?;
        self.write(&old)?;
        self.client.node_unpublish_volume(old.unpublish())?;
        if old.staging.is_some() {
            self.client.node_unstage_volume(old.unstage())?;
        }
        let killed = self.killed_in(nth, |client| client.delete_volume(old.delete()))?.is_none();
        let volume = self.make(Kill::Between)?;
        self.bring(&volume)?;
        let survived = self.read(&old).is_ok();
        ensure!(
            survived == (volume.id() == old.id()),
            "the volume {} has the data of {}: {survived}",
            volume.id(),
            old.id()
        );
        self.end(&volume, Kill::Between)?;
        Ok(killed)
    }

    pub(crate) fn bring(&self, volume: &Volume) -> Result<()> {
        if volume.staging.is_some() {
            self.client.node_stage_volume(volume.stage()).context("cannot stage")?;
        }
        self.client.node_publish_volume(volume.publish()).context("cannot publish")?;
        Ok(())
    }

    pub(crate) fn take_away(&self, volume: &Volume) -> Result<()> {
        self.client.node_unpublish_volume(volume.unpublish()).context("cannot unpublish")?;
        if volume.staging.is_some() {
            self.client.node_unstage_volume(volume.unstage()).context("cannot unstage")?;
        }
        Ok(())
    }

    fn end(&mut self, volume: &Volume, kill: Kill) -> Result<()> {
        self.call("unpublish", kill, |client| client.node_unpublish_volume(volume.unpublish()))?;
        if volume.staging.is_some() {
            self.call("unstage", kill, |client| client.node_unstage_volume(volume.unstage()))?;
        }
        self.call("delete", kill, |client| client.delete_volume(volume.delete()))?;
        self.nothing_is_left()
    }

    pub(crate) fn make(&mut self, kill: Kill) -> Result<Volume> {
        let request = create("a volume", self.bytes, self.capability.clone());
        let made = self.call("create", kill, |client| client.create_volume(request.clone()))?;
        let made = made.volume.context("no volume")?;
        ensure!(made.capacity_bytes == self.bytes, "made with {}", made.capacity_bytes);
        let stages = self.client.node_get_capabilities(Default::default())?.capabilities.iter().any(|one| {
            use csi::node_service_capability::{Type, rpc};
            matches!(&one.r#type, Some(Type::Rpc(one)) if one.r#type() == rpc::Type::StageUnstageVolume)
        });
        Ok(Volume::new(made, self.capability.clone(), &self.pods(), stages))
    }

    /// Calls, with the host killed as `kill` says, and again until it is answered. Two answers must be the same.
    pub(crate) fn call<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        kill: Kill,
        call: impl Fn(&Client) -> Result<T, Status>,
    ) -> Result<T> {
        let first = match kill {
            Kill::Between => {
                let answer = call(&self.client).with_context(|| format!("{what} failed"))?;
                self.host.kill()?;
                self.restart()?;
                Some(answer)
            }
            Kill::Within(nth) => self.killed_in(nth, &call).with_context(|| what.to_owned())?,
        };
        let again = call(&self.client).with_context(|| format!("{what} failed after a kill ({kill:?})"))?;
        let first = match first {
            Some(first) => first,
            None => call(&self.client).with_context(|| format!("{what} failed when it was repeated ({kill:?})"))?,
        };
        ensure!(first == again, "{what}, repeated, answered {again:?} and not {first:?} ({kill:?})");
        Ok(first)
    }

    /// Calls once while each thread and program is killed at its N-th system call; brings the host back where it was.
    /// `None` where there was no answer.
    pub(crate) fn killed_in<T>(&mut self, nth: Nth, call: impl Fn(&Client) -> Result<T, Status>) -> Result<Option<T>> {
        let killer = kill_at(self.host.pid()?, nth)?;
        let answer = call(&self.client);
        killer.detach()?;
        // A status without a source came from the host: what was killed was a program that it ran.
        let is_lost = |status: &Status| std::error::Error::source(status).is_some();
        // A thread that works beside the call, as the one that empties the trash, may have been killed after the answer.
        let probed = self.client.probe(Default::default());
        if answer.as_ref().is_err_and(is_lost) || probed.is_err() {
            wait_until("the killed host to end", LIMIT, || Ok(self.host.ended()?.is_some()))?;
        }
        if self.host.ended()?.is_some() {
            self.restart()?;
        }
        self.kills += usize::from(answer.is_err());
        Ok(answer.ok())
    }

    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        self.client = self.host.client(self.csi_name)?.under(&self.driver, Fault::Killed);
        Ok(())
    }

    fn place(&self, volume: &Volume) -> PathBuf {
        let is_block = self.capability == dunnage_test_common::block();
        if is_block { volume.target.clone() } else { volume.target.join("data") }
    }

    fn write(&self, volume: &Volume) -> Result<()> {
        let place = self.place(volume);
        let mut file = File::options().create(true).write(true).truncate(false).open(&place)?;
        file.write_all(volume.made.volume_id.as_bytes()).and_then(|()| file.sync_all())?;
        Ok(())
    }

    fn read(&self, volume: &Volume) -> Result<()> {
        let (place, wanted) = (self.place(volume), volume.made.volume_id.as_bytes());
        let mut found = vec![0; wanted.len()];
        File::open(&place).and_then(|mut file| file.read_exact(&mut found)).context("the data is gone")?;
        ensure!(found == wanted, "what was written is not there any more");
        Ok(())
    }

    /// Every file of the root and of the state.
    fn inventory(&self) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        walk(&self.host.setup().root("a"), &mut found)?;
        walk(&self.host.setup().scratch().path().join("state"), &mut found)?;
        Ok(found)
    }

    /// Every file in these folders of the root.
    pub(crate) fn files_in(&self, folders: &[&str]) -> Result<Vec<PathBuf>> {
        let mut found = BTreeSet::new();
        folders.iter().try_for_each(|folder| walk(&self.host.setup().root("a").join(folder), &mut found))?;
        Ok(found.into_iter().collect())
    }

    /// Where the test keeps what its volumes are mounted on.
    pub(crate) fn pods(&self) -> PathBuf {
        self.host.setup().scratch().path().join("pods")
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn count_kills_anew(&mut self) {
        self.kills = 0;
    }

    pub(crate) fn kills(&self) -> usize {
        self.kills
    }

    pub(crate) fn nothing_is_left(&self) -> Result<()> {
        let folder = self.host.setup().scratch().path();
        let (mounts, loop_devices) = (mounts_beneath(folder)?, loop_devices_beneath(folder));
        ensure!(mounts == self.mounts, "mounts are left: {mounts:?}");
        ensure!(loop_devices == self.loop_devices, "loop devices are left: {loop_devices:?}");
        // The trash is emptied after the answer.
        let mut left = Vec::new();
        wait_until("all files to go", LIMIT, || {
            left = self.inventory()?.symmetric_difference(&self.untouched).cloned().collect();
            Ok(left.is_empty())
        })
        .with_context(|| format!("left or lost: {left:?}"))?;
        let listed = self.client.list_volumes(csi::ListVolumesRequest::default())?;
        ensure!(listed.entries.is_empty(), "listed: {:?}", listed.entries);
        Ok(())
    }
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let Ok(entry) = entry else { continue };
        // What is emptied meanwhile is looked at again.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = walk(&entry.path(), found);
        }
        found.insert(entry.path());
    }
    Ok(())
}
