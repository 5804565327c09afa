//! All of it needs a kernel that makes disks with an identity.

mod at_length;
mod lives;
mod others;
mod wiping;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Need, ScsiDisk, Setup, Volume, can_run, create, wait_until};
use tonic::{Code, Status};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const DISKS: &str = "disks.csi.dunnage.dev";
/// A guest is slow.
const DEADLINE: Duration = Duration::from_secs(120);
/// What is waited for comes within seconds, or when the host looks again, which it does each minute.
const LIMIT: Duration = Duration::from_secs(300);
const SIZE: i64 = ScsiDisk::SIZE;

/// A host with one backend on disks of its own.
struct Rig {
    host: Host,
    client: Client,
    disks: Vec<ScsiDisk>,
}

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("sfdisk")])
}

impl Rig {
    /// On so many disks.
    fn on(count: usize, keys: &str) -> Result<Self> {
        let disks = ScsiDisk::lend(count)?;
        let devices: Vec<_> = disks.iter().map(|disk| disk.link().display().to_string()).collect();
        Self::of(disks, &devices, keys)
    }

    /// On those that these patterns name.
    fn of(disks: Vec<ScsiDisk>, devices: &[String], keys: &str) -> Result<Self> {
        let setup = Setup::new()?.backend("disks", "disk", &format!("devices: {devices:?}\n{keys}"))?;
        let host = setup.start(DUNNAGE)?;
        let client = host.client(DISKS)?.with_deadline(DEADLINE);
        Ok(Self { host, client, disks })
    }

    fn create(&self, name: &str, bytes: i64, capability: csi::VolumeCapability) -> Result<Volume, Status> {
        let made = self.client.create_volume(create(name, bytes, capability.clone()))?.volume.expect("no volume");
        Ok(Volume::new(made, capability, &self.host.setup().scratch().path().join("pods").join(name), true))
    }

    /// Stages and publishes.
    fn bring(&self, volume: &Volume) -> Result<(), Status> {
        self.client.node_stage_volume(volume.stage())?;
        self.client.node_publish_volume(volume.publish())?;
        Ok(())
    }

    /// The way back, without the delete.
    fn take(&self, volume: &Volume) -> Result<()> {
        self.client.node_unpublish_volume(volume.unpublish())?;
        self.client.node_unstage_volume(volume.unstage())?;
        Ok(())
    }

    fn delete(&self, volume: &Volume) -> Result<(), Status> {
        self.client.delete_volume(volume.delete()).map(drop)
    }

    /// Starts the host again, and waits until it has read the root.
    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        self.client = self.host.client(DISKS)?.with_deadline(DEADLINE);
        wait_until("the store to be open", LIMIT, || Ok(self.client.list_volumes(Default::default()).is_ok()))
    }

    fn capacity(&self) -> Result<csi::GetCapacityResponse> {
        Ok(self.client.get_capacity(csi::GetCapacityRequest::default())?)
    }

    /// Waits until so many disks are free: what was seen of a disk is good for half a minute.
    fn wait_for_free(&self, disks: i64) -> Result<()> {
        let mut seen = 0;
        let waited = wait_until("disks to be free", LIMIT, || {
            seen = self.capacity()?.available_capacity;
            Ok(seen == disks * SIZE)
        });
        waited.with_context(|| format!("{seen} bytes are free, wanted {disks} disks; {}", self.host.log()))
    }

    /// The record of a volume.
    fn record(&self, name: &str) -> Result<String> {
        let path = self.host.setup().root("disks").join(".dunnage/volumes").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Which of the disks the volume is, by the identity in its record.
    fn place(&self, name: &str) -> Result<usize> {
        let record = self.record(name)?;
        let found = self.disks.iter().position(|disk| {
            let name = disk.path().file_name().unwrap_or_default();
            let wwid = fs::read_to_string(Path::new("/sys/block").join(name).join("device/wwid")).unwrap_or_default();
            let wwid = wwid.split_whitespace().collect::<Vec<_>>().join(" ");
            !wwid.is_empty() && record.contains(&wwid)
        });
        found.with_context(|| format!("none of the disks is in {record}"))
    }

    /// Waits until the health of a volume has these words and no others.
    fn wait_for_health(&self, volume_id: &str, wanted: &[&str]) -> Result<()> {
        let request = csi::ControllerGetVolumeHealthRequest { volume_id: volume_id.into(), ..Default::default() };
        let mut seen = String::new();
        let waited = wait_until("the health of the volume to be told", LIMIT, || {
            // It has two seconds for its answer, which a guest may not have.
            seen = format!("{:?}", self.client.controller_get_volume_health(request.clone()));
            let words = seen.split("reason: \"").skip(1).filter_map(|rest| rest.split('"').next());
            Ok(seen.starts_with("Ok") && words.collect::<BTreeSet<_>>() == BTreeSet::from_iter(wanted.iter().copied()))
        });
        waited.with_context(|| format!("{seen}, wanted {wanted:?}"))
    }
}

fn is<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, said: &str) -> Result<()> {
    let status = answer.expect_err("it was done");
    ensure!(status.code() == code && status.message().contains(said), "{status:?}, wanted {code:?} with {said:?}");
    Ok(())
}

/// A byte of a device, past what is cached of it.
fn byte(device: &Path, place: i64) -> Result<u8> {
    let file = File::open(device)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place as u64)?;
    Ok(byte[0])
}

/// Writes a piece to a device, durably.
fn write(device: &Path, place: i64, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).open(device)?;
    file.write_all_at(bytes, place as u64)?;
    Ok(file.sync_all()?)
}

/// In the middle of a disk, where no file system and nobody who looks for one has anything.
const MIDDLE: i64 = 40 * MIB;
