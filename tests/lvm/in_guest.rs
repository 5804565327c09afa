//! All of it needs a kernel with a device mapper.

mod at_length;
mod lives;
mod snapshots;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Fault, Host, Need, Setup, Volume, VolumeGroup, can_run, create, wait_until};
use tonic::{Code, Status};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const DISKS: &str = "disks.csi.dunnage.dev";
/// A guest is slow, and LVM's commands are many.
const DEADLINE: Duration = Duration::from_secs(300);

/// What is waited for comes within seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A host with one backend on a volume group of its own.
struct Rig {
    host: Host,
    client: Client,
    group: VolumeGroup,
}

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("lvm"), Need::Program("thin_check")])
}

impl Rig {
    /// Thick volumes on disks of these sizes in MiB.
    fn thick(mebibytes: &[u64], more: &str) -> Result<Self> {
        let setup = Setup::new()?;
        let group = VolumeGroup::new(setup.scratch(), mebibytes)?;
        Self::on(setup, group, &format!("type: thick\n{more}"))
    }

    /// Thin volumes in a pool of this size in MiB.
    fn thin(mebibytes: u64, more: &str) -> Result<Self> {
        let setup = Setup::new()?;
        let group = VolumeGroup::new(setup.scratch(), &[mebibytes + 64])?;
        group.make_pool("pool", mebibytes)?;
        Self::on(setup, group, &format!("type: thin\npool: pool\n{more}"))
    }

    fn on(setup: Setup, group: VolumeGroup, keys: &str) -> Result<Self> {
        let setup = setup.rootless("disks", "lvm", &format!("{}{keys}", group.keys()));
        let host = setup.start(DUNNAGE)?;
        let client = host.client(DISKS)?.with_deadline(DEADLINE);
        Ok(Self { host, client, group })
    }

    /// The client, for calls that are made while something is wrong.
    fn under(&self, fault: Fault) -> Client {
        self.client.under("lvm", fault)
    }

    fn create(&self, name: &str, bytes: i64, capability: csi::VolumeCapability) -> Result<Volume, Status> {
        self.create_with(create(name, bytes, capability))
    }

    fn create_with(&self, request: csi::CreateVolumeRequest) -> Result<Volume, Status> {
        let (name, capability) = (request.name.clone(), request.volume_capabilities[0].clone());
        let made = self.client.create_volume(request)?.volume.expect("no volume");
        Ok(Volume::new(made, capability, &self.host.setup().scratch().path().join("pods").join(name), true))
    }

    /// Stages and publishes.
    fn bring(&self, volume: &Volume) -> Result<()> {
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

    fn delete(&self, volume: &Volume) -> Result<()> {
        self.client.delete_volume(volume.delete())?;
        Ok(())
    }

    /// Grows it, also on this node.
    fn grow(&self, volume: &Volume, bytes: i64) -> Result<()> {
        let grown = self.client.controller_expand_volume(dunnage_test_common::expand(&volume.id(), bytes))?;
        ensure!(grown.capacity_bytes == bytes && grown.node_expansion_required, "{grown:?}");
        let grown = self.client.node_expand_volume(volume.expand_on_node(bytes))?;
        ensure!(grown.capacity_bytes == bytes, "{grown:?}");
        Ok(())
    }

    /// Starts the host again, and waits until it has read the group.
    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        self.client = self.host.client(DISKS)?.with_deadline(DEADLINE);
        wait_until("the store to be open", LIMIT, || Ok(self.client.list_volumes(Default::default()).is_ok()))
    }

    fn available(&self) -> Result<i64> {
        Ok(self.client.get_capacity(csi::GetCapacityRequest::default())?.available_capacity)
    }

    /// Waits until the health of a volume has these words and no others: what LVM said is good for a moment.
    fn wait_for_health(&self, client: &Client, volume_id: &str, wanted: &[&str]) -> Result<()> {
        let request = csi::ControllerGetVolumeHealthRequest { volume_id: volume_id.into(), ..Default::default() };
        let mut seen = String::new();
        let waited = wait_until("the health of the volume to be told", LIMIT, || {
            // It has two seconds for its answer, which a guest may not have.
            seen = format!("{:?}", client.controller_get_volume_health(request.clone()));
            let words = seen.split("reason: \"").skip(1).filter_map(|rest| rest.split('"').next());
            Ok(seen.starts_with("Ok") && words.collect::<BTreeSet<_>>() == BTreeSet::from_iter(wanted.iter().copied()))
        });
        waited.with_context(|| format!("{seen}, wanted {wanted:?}"))
    }

    /// That there are these logical volumes and no others, and no device of them but those of a pool.
    fn is_left_with(&self, volumes: &[&str]) -> Result<()> {
        let found = self.group.volumes()?;
        ensure!(found == volumes, "there is {found:?}, wanted {volumes:?}");
        let active: Vec<_> = self.group.active()?.into_iter().filter(|name| !name.starts_with("pool")).collect();
        ensure!(active.is_empty(), "the kernel has {active:?}");
        let prefix = format!("{}-", self.group.name());
        let nodes = fs::read_dir("/dev/mapper")?.flatten().map(|one| one.file_name().to_string_lossy().into_owned());
        let nodes: Vec<_> = nodes.filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect();
        ensure!(nodes.iter().all(|name| name.starts_with("pool")), "there are the nodes {nodes:?}");
        let folder = Path::new("/dev").join(self.group.name());
        let links: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|one| one.file_name()).collect();
        ensure!(links.iter().all(|name| name == "pool"), "there are the links {links:?}");
        Ok(())
    }
}

fn is<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, said: &str) -> Result<()> {
    let status = answer.expect_err("it was done");
    ensure!(status.code() == code && status.message().contains(said), "{status:?}, wanted {code:?} with {said:?}");
    Ok(())
}

/// All bytes of a raw block volume that is published.
fn bytes_of(volume: &Volume) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(&volume.target)?.read_to_end(&mut bytes).context("cannot read the volume")?;
    Ok(bytes)
}
