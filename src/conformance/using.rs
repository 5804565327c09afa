//! Volumes, from their request to what a workload sees of them.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use dunnage_csi_proto::csi::v1::volume_capability::AccessType;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::*;

use super::Kind;
use super::content;
use super::failure::{Checked, Stop};
use super::kit::{Answered, Kit};
use super::mounts;
use super::undo::Undo;
use crate::client::{Access, Plugin, blocking, capability};

/// How long the processing of a snapshot may take.
const PROCESSING: Duration = Duration::from_secs(600);

/// A volume that is attached and staged, as far as the plugin wants that.
#[derive(Debug, Clone)]
pub(super) struct Used {
    pub(super) volume: Volume,
    pub(super) kind: Kind,
    pub(super) mode: Mode,
    publish_context: HashMap<String, String>,
    staging: Option<PathBuf>,
    folder: PathBuf,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Kit {
    /// The capability of a volume that is used so, in the mode that every plugin has.
    pub(super) fn capability(&self, kind: Kind) -> VolumeCapability {
        self.capability_in(kind, Mode::SingleNodeWriter)
    }

    pub(super) fn capability_in(&self, kind: Kind, mode: Mode) -> VolumeCapability {
        let access = match kind {
            Kind::Mount => Access::Mount(self.params().fs_type.clone()),
            Kind::Block => Access::Block,
        };
        let mut made = capability(&access, mode);
        if let Some(AccessType::Mount(mount)) = &mut made.access_type {
            mount.mount_flags.clone_from(&self.params().mount_flags);
        }
        made
    }

    /// A request for a volume with a name of its own.
    pub(super) fn request(&self, what: &str) -> CreateVolumeRequest {
        self.request_for(what, self.kind())
    }

    pub(super) fn request_for(&self, what: &str, kind: Kind) -> CreateVolumeRequest {
        let here = self.topology();
        CreateVolumeRequest {
            name: self.name(what),
            capacity_range: Some(CapacityRange { required_bytes: self.params().size(), limit_bytes: 0 }),
            volume_capabilities: vec![self.capability(kind)],
            parameters: self.params().parameters.clone(),
            accessibility_requirements: here
                .map(|here| TopologyRequirement { requisite: vec![here.clone()], preferred: vec![here] }),
            ..CreateVolumeRequest::default()
        }
    }

    /// A new volume.
    pub(super) async fn volume(&self, what: &str) -> Checked<Volume> {
        self.create(self.request(what)).await
    }

    /// The volume of a request.
    pub(super) async fn create(&self, request: CreateVolumeRequest) -> Checked<Volume> {
        volume_of(&self.ok(request).await?)
    }

    /// A volume that was deleted: its id is one that the plugin made, and nothing is behind it.
    pub(super) async fn deleted_volume(&self) -> Checked<Volume> {
        let volume = self.volume("gone").await?;
        self.ok(DeleteVolumeRequest { volume_id: volume.volume_id.clone(), ..Default::default() }).await?;
        Ok(volume)
    }

    /// A snapshot that is ready to use.
    pub(super) async fn snapshot(&self, source: &Volume, what: &str) -> Checked<Snapshot> {
        self.ready(self.snapshot_request(source, what)).await
    }

    pub(super) fn snapshot_request(&self, source: &Volume, what: &str) -> CreateSnapshotRequest {
        CreateSnapshotRequest {
            source_volume_id: source.volume_id.clone(),
            name: self.name(what),
            parameters: self.params().snapshot_parameters.clone(),
            ..CreateSnapshotRequest::default()
        }
    }

    /// Asks for a snapshot until it is ready to use.
    pub(super) async fn ready(&self, request: CreateSnapshotRequest) -> Checked<Snapshot> {
        let start = Instant::now();
        loop {
            let answered = self.ok(request.clone()).await?;
            let Some(snapshot) = answered.snapshot.clone() else {
                return Err(answered.wrong("a snapshot, which is REQUIRED"));
            };
            if snapshot.ready_to_use {
                return Ok(snapshot);
            }
            answered.must(start.elapsed() < PROCESSING, "ready_to_use within ten minutes, once it is processed")?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the folders that are the orchestrator's to make, attaches and stages.
    pub(super) async fn bring(&self, volume: &Volume, kind: Kind) -> Checked<Used> {
        self.bring_in(volume, kind, Mode::SingleNodeWriter).await
    }

    pub(super) async fn bring_in(&self, volume: &Volume, kind: Kind, mode: Mode) -> Checked<Used> {
        let used = self.attach(volume, kind, mode).await?;
        if let Some(request) = used.stage_request(self) {
            self.ok(request).await?;
        }
        Ok(used)
    }

    /// The same without the staging.
    pub(super) async fn attach(&self, volume: &Volume, kind: Kind, mode: Mode) -> Checked<Used> {
        let folder = self.place();
        self.note(Undo::Folder(folder.clone()));
        let plugin = self.plugin();
        let staging = plugin.offers().stages().then(|| folder.join("staging"));
        let made = staging.clone().unwrap_or_else(|| folder.clone());
        blocking("cannot make", &made, |path| fs::create_dir_all(path)).await?;
        let mut used = Used { volume: volume.clone(), kind, mode, publish_context: HashMap::new(), staging, folder };
        if plugin.offers().attaches() {
            let attached = self.ok(used.attach_request(self)).await?;
            used.publish_context.clone_from(&attached.publish_context);
        }
        Ok(used)
    }

    /// Publishes at the target of that name, and checks what is there.
    pub(super) async fn publish(&self, used: &Used, pod: &str) -> Checked<PathBuf> {
        let request = used.publish_request(self, pod).await?;
        let target = PathBuf::from(&request.target_path);
        let published = self.ok(request).await?;
        used.is_at(&target, &published).await?;
        Ok(target)
    }

    pub(super) async fn unpublish(&self, used: &Used, pod: &str) -> Checked {
        self.ok(used.unpublish_request(pod)).await.map(drop)
    }

    /// Unstages and detaches.
    pub(super) async fn take(&self, used: &Used) -> Checked {
        if let Some(request) = used.unstage_request() {
            self.ok(request).await?;
        }
        if self.plugin().offers().attaches() {
            self.ok(used.detach_request(self)).await?;
        }
        Ok(())
    }

    /// Brings a volume, writes content of this seed, and takes it away again.
    pub(super) async fn fill(&self, volume: &Volume, kind: Kind, seed: u64) -> Checked {
        let used = self.bring(volume, kind).await?;
        let target = self.publish(&used, "fill").await?;
        content::write(&target, kind, seed).await?;
        self.unpublish(&used, "fill").await?;
        self.take(&used).await
    }

    /// Brings a volume, compares its content with that of the seed, and takes it away again.
    pub(super) async fn holds(&self, volume: &Volume, kind: Kind, seed: u64, why: &str) -> Checked {
        let used = self.bring(volume, kind).await?;
        let target = self.publish(&used, "look").await?;
        content::compare(&target, kind, seed, why).await?;
        self.unpublish(&used, "look").await?;
        self.take(&used).await
    }
}

impl Used {
    pub(super) fn attach_request(&self, kit: &Kit) -> ControllerPublishVolumeRequest {
        ControllerPublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            node_id: node(&kit.plugin()),
            volume_capability: Some(kit.capability_in(self.kind, self.mode)),
            volume_context: self.volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        }
    }

    pub(super) fn detach_request(&self, kit: &Kit) -> ControllerUnpublishVolumeRequest {
        ControllerUnpublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            node_id: node(&kit.plugin()),
            ..ControllerUnpublishVolumeRequest::default()
        }
    }

    /// NodeStageVolume, where the plugin stages.
    pub(super) fn stage_request(&self, kit: &Kit) -> Option<NodeStageVolumeRequest> {
        Some(NodeStageVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: text(self.staging.as_deref()?),
            volume_capability: Some(kit.capability_in(self.kind, self.mode)),
            volume_context: self.volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        })
    }

    pub(super) fn unstage_request(&self) -> Option<NodeUnstageVolumeRequest> {
        let staging_target_path = text(self.staging.as_deref()?);
        Some(NodeUnstageVolumeRequest { volume_id: self.volume.volume_id.clone(), staging_target_path })
    }

    /// Where a pod of that name sees it.
    pub(super) fn target(&self, pod: &str) -> PathBuf {
        self.folder.join(pod).join("volume")
    }

    pub(super) fn staging(&self) -> String {
        self.staging.as_deref().map(text).unwrap_or_default()
    }

    /// NodePublishVolume; the parent of the target is made, which is the orchestrator's to do.
    pub(super) async fn publish_request(&self, kit: &Kit, pod: &str) -> Checked<NodePublishVolumeRequest> {
        blocking("cannot make", &self.folder.join(pod), |path| fs::create_dir_all(path)).await?;
        Ok(NodePublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: self.staging(),
            target_path: text(&self.target(pod)),
            volume_capability: Some(kit.capability_in(self.kind, self.mode)),
            volume_context: self.volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        })
    }

    pub(super) fn unpublish_request(&self, pod: &str) -> NodeUnpublishVolumeRequest {
        let target_path = text(&self.target(pod));
        NodeUnpublishVolumeRequest { volume_id: self.volume.volume_id.clone(), target_path }
    }

    /// What a publish must have placed at the target.
    pub(super) async fn is_at(&self, target: &Path, published: &Answered<NodePublishVolumeRequest>) -> Checked {
        let kind = self.kind;
        let found = blocking("cannot look at", target, |target| fs::metadata(target)).await;
        let holds = found.as_ref().is_ok_and(|found| match kind {
            Kind::Mount => found.is_dir(),
            Kind::Block => found.file_type().is_block_device(),
        });
        let what = match kind {
            Kind::Mount => "the mounted directory",
            Kind::Block => "the block device",
        };
        if holds {
            return Ok(());
        }
        let found = found.map_or_else(|error| error.to_string(), |found| format!("{:?}", found.file_type()));
        Err(Stop::failed(
            format_args!("NodePublishVolume {:?}", published.request),
            format_args!("OK, and at the target: {found}"),
            format_args!("{what} at target_path"),
        ))
    }

    /// How many mounts lie at the target of that name.
    pub(super) async fn mounts(&self, pod: &str) -> Checked<usize> {
        let found = blocking("cannot list the mounts at", &self.target(pod), mounts::beneath).await?;
        Ok(found.len())
    }
}

pub(super) fn node(plugin: &Plugin) -> String {
    plugin.offers().node_id.clone()
}

/// The volume of an answer, with what every volume must have.
pub(super) fn volume_of(answered: &Answered<CreateVolumeRequest>) -> Checked<Volume> {
    match &answered.volume {
        Some(volume) if !volume.volume_id.is_empty() => Ok(volume.clone()),
        Some(_) => Err(answered.wrong("a volume_id, which is REQUIRED")),
        None => Err(answered.wrong("a volume, which is REQUIRED")),
    }
}

/// Removes folders of this side, three deep. Never what lies in a volume: a mount or a target that is still there makes
/// the removal fail, as it must.
pub(super) async fn remove(folder: &Path) -> Checked {
    Ok(blocking("something is left in", folder, remove_empty).await?)
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        fs::remove_dir(entry?.path())?;
    }
    fs::remove_dir(folder)
}
