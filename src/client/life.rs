//! One volume's way through a plugin, and back.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use dunnage_csi_proto::csi::v1::{CreateSnapshotRequest, Snapshot, Volume, VolumeCapability};
use tonic::Code;

use crate::client::plugin::DEADLINE;
use crate::client::{Error, Plugin, Result, VolumeRequest};

/// The life of one volume: what of it has been begun, so that it can always be ended.
///
/// A call is noted before it is sent, since one that failed, or that nobody waited for, may have done its work. Dropping
/// the future of a call is therefore safe; [`Life::end`] takes back what is noted. Calls that the plugin does not
/// advertise (attaching, staging) do nothing and succeed.
#[derive(Debug)]
pub struct Life {
    plugin: Plugin,
    request: VolumeRequest,
    folder: PathBuf,
    created: Option<Volume>,
    maybe_created: bool,
    attached: bool,
    publish_context: HashMap<String, String>,
    staged: bool,
    published: Vec<PathBuf>,
    snapshot: Option<CreateSnapshotRequest>,
}

impl Life {
    /// A volume that does not exist yet. `folder` is where its staging and target paths are made, and must be its own.
    pub fn new(plugin: &Plugin, request: VolumeRequest, folder: impl Into<PathBuf>) -> Self {
        Self {
            plugin: plugin.clone(),
            request,
            folder: folder.into(),
            created: None,
            maybe_created: false,
            attached: false,
            publish_context: HashMap::new(),
            staged: false,
            published: Vec::new(),
            snapshot: None,
        }
    }

    /// The plugin it lives in.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What was asked for.
    pub fn request(&self) -> &VolumeRequest {
        &self.request
    }

    /// The volume.
    ///
    /// # Errors
    /// Where it was not created.
    pub fn volume(&self) -> Result<&Volume> {
        let what = || format!("there is no volume {:?} to go on with", self.request.name);
        self.created.as_ref().ok_or_else(|| Error::Answer { rpc: "CreateVolume", what: what() })
    }

    /// Whether it was staged, and not unstaged since.
    pub fn is_staged(&self) -> bool {
        self.staged
    }

    /// The capability that goes with every call.
    pub fn capability(&self) -> VolumeCapability {
        self.request.capability()
    }

    /// The staging path, where the plugin stages.
    pub fn staging(&self) -> Option<PathBuf> {
        self.plugin.offers().stages().then(|| self.folder.join("staging"))
    }

    /// A target path of that name.
    pub fn target(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("volume")
    }

    /// CreateVolume; again for a repetition.
    pub async fn create(&mut self) -> Result<Volume> {
        self.maybe_created = true;
        let volume = self.plugin.create_volume(self.request.to_wire(self.plugin.offers())).await?;
        Ok(self.created.insert(volume).clone())
    }

    /// ControllerPublishVolume, where the plugin attaches.
    pub async fn attach(&mut self) -> Result<()> {
        if self.plugin.offers().attaches() {
            let volume = self.volume()?.clone();
            self.attached = true;
            self.publish_context = self.plugin.controller_publish_volume(&volume, self.capability()).await?;
        }
        Ok(())
    }

    /// Makes what is the orchestrator's to make: the staging path, and the parent of each target of these names.
    pub async fn prepare(&self, targets: &[&str]) -> Result<()> {
        let mut folders: Vec<PathBuf> = targets.iter().map(|name| self.folder.join(name)).collect();
        folders.extend(self.staging());
        blocking("cannot make the folders below", &self.folder, move |_| {
            folders.iter().try_for_each(fs::create_dir_all)
        })
        .await
    }

    /// Removes the folders of this side, once nothing is published or staged there.
    pub async fn clear(&self) -> Result<()> {
        blocking("cannot remove the folder", &self.folder, remove_empty).await
    }

    /// NodeStageVolume, where the plugin stages.
    pub async fn stage(&mut self) -> Result<()> {
        let Some(staging) = self.staging() else { return Ok(()) };
        let volume = self.volume()?.clone();
        self.staged = true;
        self.plugin.node_stage_volume(&volume, &self.publish_context, &staging, self.capability()).await
    }

    /// NodePublishVolume at the target of that name.
    pub async fn publish(&mut self, name: &str, readonly: bool) -> Result<PathBuf> {
        let target = self.target(name);
        let volume = self.volume()?.clone();
        self.published.push(target.clone());
        let how = (self.capability(), readonly);
        let staging = self.staging();
        self.plugin.node_publish_volume(&volume, &self.publish_context, staging.as_deref(), &target, how).await?;
        Ok(target)
    }

    /// NodeUnpublishVolume from the target of that name.
    pub async fn unpublish(&mut self, name: &str) -> Result<()> {
        let target = self.target(name);
        self.plugin.node_unpublish_volume(&self.volume()?.volume_id, &target).await?;
        self.published.retain(|published| *published != target);
        Ok(())
    }

    /// NodeUnstageVolume, where the volume was staged.
    pub async fn unstage(&mut self) -> Result<()> {
        if let (Some(staging), true) = (self.staging(), self.staged) {
            self.plugin.node_unstage_volume(&self.volume()?.volume_id, &staging).await?;
            self.staged = false;
        }
        Ok(())
    }

    /// ControllerUnpublishVolume, where the volume was attached.
    pub async fn detach(&mut self) -> Result<()> {
        if self.attached {
            self.plugin.controller_unpublish_volume(&self.volume()?.volume_id).await?;
            self.attached = false;
        }
        Ok(())
    }

    /// CreateSnapshot of that name; again for a repetition, which says whether the snapshot is ready by now.
    pub async fn cut(&mut self, name: &str) -> Result<Snapshot> {
        let source_volume_id = self.volume()?.volume_id.clone();
        let request = CreateSnapshotRequest { source_volume_id, name: name.to_owned(), ..Default::default() };
        self.snapshot = Some(request.clone());
        self.plugin.create_snapshot(request).await
    }

    /// DeleteSnapshot of the snapshot that was cut.
    pub async fn delete_snapshot(&mut self, snapshot_id: &str) -> Result<()> {
        self.plugin.delete_snapshot(snapshot_id).await?;
        self.snapshot = None;
        Ok(())
    }

    /// Goes on with another volume, after the one before was deleted.
    pub fn go_on_with(&mut self, request: VolumeRequest) {
        self.request = request;
    }

    /// DeleteVolume.
    pub async fn delete(&mut self) -> Result<()> {
        let volume_id = self.volume()?.volume_id.clone();
        self.plugin.delete_volume(&volume_id).await?;
        self.created = None;
        self.maybe_created = false;
        Ok(())
    }

    /// Takes back whatever is left, last things first; `around` is given each call, to time or to show it.
    ///
    /// Goes on after an error, so that as much as possible is taken back: the errors are what is returned. A volume
    /// whose CreateVolume failed is asked for once more, since only the answer has its id: a plugin that still refuses
    /// has none.
    pub async fn end<O: Around>(&mut self, around: &mut O) -> Vec<Error> {
        let mut errors = self.end_volume(around).await;
        if let Some(request) = self.snapshot.take() {
            let plugin = &self.plugin;
            let undo = async {
                // Only the answer has its id. A plugin that refuses the name has nothing of it.
                match plugin.create_snapshot(request).await {
                    Ok(snapshot) => once_free(|| plugin.delete_snapshot(&snapshot.snapshot_id)).await,
                    Err(_) => Ok(()),
                }
            };
            errors.extend(around.call("DeleteSnapshot", undo).await.err());
        }
        errors
    }

    async fn end_volume<O: Around>(&mut self, around: &mut O) -> Vec<Error> {
        let mut errors = Vec::new();
        if self.created.is_none() && self.maybe_created {
            let _refused_means_not_there = self.create().await;
        }
        let Some(volume_id) = self.created.as_ref().map(|volume| volume.volume_id.clone()) else {
            return self.clear().await.err().into_iter().collect();
        };
        let plugin = &self.plugin;
        for target in std::mem::take(&mut self.published).into_iter().rev() {
            let undo = once_free(|| plugin.node_unpublish_volume(&volume_id, &target));
            errors.extend(around.call("NodeUnpublishVolume", undo).await.err());
        }
        if let (Some(staging), true) = (self.staging(), self.staged) {
            let undone =
                around.call("NodeUnstageVolume", once_free(|| plugin.node_unstage_volume(&volume_id, &staging)));
            self.staged = note(undone.await, &mut errors);
        }
        if self.attached {
            let undo = once_free(|| plugin.controller_unpublish_volume(&volume_id));
            self.attached = note(around.call("ControllerUnpublishVolume", undo).await, &mut errors);
        }
        self.maybe_created =
            note(around.call("DeleteVolume", once_free(|| plugin.delete_volume(&volume_id))).await, &mut errors);
        self.created = self.created.take().filter(|_| self.maybe_created);
        errors.extend(self.clear().await.err());
        errors
    }
}

/// Repeats a call for as long as another one holds the volume: one that nobody waited for goes on to its end.
async fn once_free<F: Future<Output = Result<()>>>(call: impl Fn() -> F) -> Result<()> {
    const BETWEEN: Duration = Duration::from_millis(20);
    let until = Instant::now() + DEADLINE;
    loop {
        match call().await {
            Err(error) if error.code() == Some(Code::Aborted) && Instant::now() < until => {
                tokio::time::sleep(BETWEEN).await;
            }
            answered => return answered,
        }
    }
}

/// Keeps the error of what was to be taken back; whether it is there still.
fn note(undone: Result<()>, errors: &mut Vec<Error>) -> bool {
    let left = undone.is_err();
    errors.extend(undone.err());
    left
}

/// What is done around a call: timing it, showing it, or nothing.
pub trait Around {
    /// Waits for the call of that name.
    fn call<T>(&mut self, rpc: &'static str, call: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>>;
}

/// Nothing is done around a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Around for Plain {
    async fn call<T>(&mut self, _: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        call.await
    }
}

/// Runs what blocks in the kernel off the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || work(&owned)).await {
        Ok(result) => result.map_err(|error| Error::local(what, path, error)),
        Err(panicked) => Err(Error::local(what, path, panicked)),
    }
}

/// Removes folders that are empty, three deep, as this side made them. Never what lies in a volume: a mount that is
/// still there makes the removal fail, as it must.
fn remove_empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?.path();
        match fs::remove_dir(entry.join("volume")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::remove_dir(entry)?,
        }
    }
    fs::remove_dir(folder)
}
