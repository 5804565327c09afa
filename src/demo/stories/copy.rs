//! A snapshot that outlives its volume.

use std::time::Duration;

use dunnage_csi_proto::csi::v1::Snapshot;
use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use tonic::Code;

use crate::client::{Life, VolumeRequest};
use crate::demo::script::{Failed, Mismatch, Script, came_with};
use crate::demo::stories::{bytes, parts};

/// A whole life of a volume that is lost, and comes back from its snapshot. The pod has ended when the snapshot is taken:
/// on some file systems it must have.
pub(crate) async fn copy(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    parts::create(script, life).await?;
    parts::stage(script, life, "brought to the node").await?;
    let volume = parts::publish(script, life, ("pod-a", false), "bound into the pod").await?;
    parts::write(script, &volume).await?;
    parts::unpublish(script, life, "pod-a").await?;
    parts::unstage(script, life).await?;
    let snapshot = cut(script, life).await?;
    parts::finish(script, life).await?;

    let request = life.request().clone();
    let name = format!("{}-again", request.name);
    life.go_on_with(VolumeRequest { name, snapshot_id: Some(snapshot.snapshot_id.clone()), ..request });
    parts::create(script, life).await?;
    parts::stage(script, life, "the new volume is brought to the node").await?;
    let volume = parts::publish(script, life, ("pod-b", false), "bound into another pod").await?;
    parts::read(script, &volume, "the file is there, as the first pod wrote it").await?;
    parts::unpublish(script, life, "pod-b").await?;
    parts::finish(script, life).await?;
    let step = async { Ok(came_with("gone", life.delete_snapshot(&snapshot.snapshot_id).await?)) };
    script.step("DeleteSnapshot", "the snapshot gone", step).await
}

/// Whether the plugin takes snapshots.
pub(crate) fn copies(life: &Life) -> bool {
    life.plugin().offers().controller(ControllerRpc::CreateDeleteSnapshot)
}

/// Asks again until it is ready, as an orchestrator does; ABORTED says that it is still being made.
async fn cut(script: &mut Script<'_>, life: &mut Life) -> Result<Snapshot, Failed> {
    const BETWEEN: Duration = Duration::from_millis(50);
    let step = async {
        let name = format!("{}-monday", life.request().name);
        let snapshot = loop {
            match life.cut(&name).await {
                Ok(snapshot) if snapshot.ready_to_use => break snapshot,
                Err(error) if error.code() != Some(Code::Aborted) => return Err(error.into()),
                _ => tokio::time::sleep(BETWEEN).await,
            }
        };
        let text = format!("{name:?} of {}, ready to use", bytes(snapshot.size_bytes));
        if snapshot.snapshot_id.is_empty() {
            return Err(Mismatch("a snapshot without an id".to_owned()));
        }
        Ok(came_with(text, snapshot))
    };
    script.step("CreateSnapshot", "a snapshot of what the volume holds", step).await
}
