//! All of it needs a kernel with an iSCSI target and initiator, and open-iscsi. Two hosts with states of their own are two nodes on one
//! kernel: each logs in by its own name, and what one has the other cannot use.

mod chap;
mod lives;
mod lost;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, IscsiTarget, Need, Setup, Volume, can_run, create, wait_until};
use tonic::{Code, Status};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const FAST: &str = "fast.csi.dunnage.dev";
/// A guest is slow.
const DEADLINE: Duration = Duration::from_secs(300);
/// Far above what anything takes that does not hang.
const LIMIT: Duration = Duration::from_secs(120);

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("iscsiadm")])
}

/// A node that uses volumes.
struct User {
    host: Host,
    client: Client,
    id: String,
}

/// The node of the store, and two that use it.
struct Rig {
    storage: Host,
    controller: Client,
    one: User,
    two: User,
    target: IscsiTarget,
    instance: String,
}

impl Rig {
    /// On images.
    fn image() -> Result<Self> {
        Self::image_with("")
    }

    /// The same with more keys.
    fn image_with(more: &str) -> Result<Self> {
        let setup = Setup::new()?;
        let root = setup.scratch().folder("images")?;
        Self::on(setup, &format!("driver: image\nroot: {}", root.display()), more)
    }

    fn on(setup: Setup, store: &str, more: &str) -> Result<Self> {
        let target = IscsiTarget::new()?;
        let keys = format!("{}\n{more}", target.keys(&setup, store)?);
        let storage = setup.rootless("fast", "iscsi", &keys).start(DUNNAGE)?;
        let controller = storage.client(FAST)?.with_deadline(DEADLINE);
        let manifest = controller.get_plugin_info(Default::default())?.manifest;
        let (instance, _) = manifest.iter().find(|(_, backend)| *backend == "fast").context("no instance")?;
        let user = |name: &str| -> Result<User> {
            let keys = format!("{keys}\ninstance: {instance}");
            let mut host = Setup::new()?.set("node", name).rootless("fast", "iscsi", &keys).prepare(DUNNAGE)?;
            host.restart()?;
            let client = host.client(FAST)?.with_deadline(DEADLINE);
            let id = client.node_get_info(Default::default())?.node_id;
            Ok(User { host, client, id })
        };
        let (one, two, instance) = (user("one")?, user("two")?, instance.clone());
        Ok(Self { one, two, storage, controller, target, instance })
    }

    fn create(&self, name: &str, bytes: i64, capability: csi::VolumeCapability) -> Result<Volume> {
        self.create_with(create(name, bytes, capability))
    }

    fn create_with(&self, request: csi::CreateVolumeRequest) -> Result<Volume> {
        let (name, capability) = (request.name.clone(), request.volume_capabilities[0].clone());
        let made = self.controller.create_volume(request)?.volume.context("no volume")?;
        Ok(Volume::new(made, capability, &self.one.host.setup().scratch().path().join("pods").join(name), true))
    }

    fn attach(&self, volume: &Volume, to: &User) -> Result<PublishContext, Status> {
        self.attach_with(volume, to, &[])
    }

    fn attach_with(&self, volume: &Volume, to: &User, secrets: Secrets<'_>) -> Result<PublishContext, Status> {
        let request = csi::ControllerPublishVolumeRequest { secrets: owned(secrets), ..attach_request(volume, to) };
        Ok(self.controller.controller_publish_volume(request)?.publish_context)
    }

    fn detach(&self, volume: &Volume, from: &User) -> Result<()> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.id(),
            node_id: from.id.clone(),
            ..Default::default()
        };
        self.controller.controller_unpublish_volume(request)?;
        Ok(())
    }

    /// Attaches, stages and publishes.
    fn bring(&self, volume: &Volume, to: &User) -> Result<PublishContext> {
        let context = self.attach(volume, to)?;
        to.stage(volume, &context)?;
        to.publish(volume, &context)?;
        Ok(context)
    }

    /// The way back.
    fn take(&self, volume: &Volume, from: &User) -> Result<()> {
        from.take(volume)?;
        self.detach(volume, from)
    }

    fn restart_storage(&mut self) -> Result<()> {
        self.storage.restart()?;
        self.controller = self.storage.client(FAST)?.with_deadline(DEADLINE);
        Ok(())
    }

    /// That nothing of this test is in the kernel.
    fn is_left_with_nothing(&self, volume: &Volume) -> Result<()> {
        let (exports, sessions) = (self.target.exports(&volume.id())?, self.target.sessions(&volume.id())?);
        ensure!(exports.is_empty() && sessions.is_empty(), "left: {exports:?}, {sessions:?}");
        Ok(())
    }
}

/// Names and values.
type Secrets<'a> = &'a [(&'a str, &'a str)];

fn owned(secrets: Secrets<'_>) -> std::collections::HashMap<String, String> {
    secrets.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// What ControllerPublishVolume answered.
type PublishContext = std::collections::HashMap<String, String>;

fn attach_request(volume: &Volume, to: &User) -> csi::ControllerPublishVolumeRequest {
    csi::ControllerPublishVolumeRequest {
        volume_id: volume.id(),
        node_id: to.id.clone(),
        volume_capability: Some(volume.capability.clone()),
        volume_context: volume.made.volume_context.clone(),
        ..Default::default()
    }
}

impl User {
    fn stage(&self, volume: &Volume, context: &PublishContext) -> Result<(), Status> {
        self.stage_with(volume, context, &[])
    }

    fn stage_with(&self, volume: &Volume, context: &PublishContext, secrets: Secrets<'_>) -> Result<(), Status> {
        let publish_context = context.clone();
        let request = csi::NodeStageVolumeRequest { publish_context, secrets: owned(secrets), ..volume.stage() };
        self.client.node_stage_volume(request).map(drop)
    }

    fn publish(&self, volume: &Volume, context: &PublishContext) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest { publish_context: context.clone(), ..volume.publish() };
        self.client.node_publish_volume(request).map(drop)
    }

    fn take(&self, volume: &Volume) -> Result<()> {
        self.client.node_unpublish_volume(volume.unpublish())?;
        self.client.node_unstage_volume(volume.unstage())?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        self.client = self.host.client(FAST)?.with_deadline(DEADLINE);
        Ok(())
    }
}

fn is<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, said: &str) -> Result<()> {
    let status = answer.expect_err("it was done");
    ensure!(status.code() == code && status.message().contains(said), "{status:?}, wanted {code:?} with {said:?}");
    Ok(())
}

/// Waits until a file can be written and is on the disk.
fn wait_until_written(path: &std::path::Path, text: &str) -> Result<()> {
    let written = || {
        let file = std::fs::File::create(path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        });
        Ok(file.is_ok())
    };
    wait_until("a write to reach the store", LIMIT, written)
}
