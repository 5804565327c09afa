//! A folder that two pods use, one after the other.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;

use crate::client::{Life, Plugin};
use crate::demo::script::{Failed, Mismatch, Script, came};
use crate::demo::stories::{bytes, parts};
use crate::demo::volume_io;

/// A whole life with a repeated create, a write, a second pod that may only read, and a repeated delete.
pub(crate) async fn folder(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    capacity(script, life.plugin()).await?;
    parts::create(script, life).await?;
    parts::create_again(script, life).await?;
    parts::stage(script, life, "brought to the node").await?;
    let first = parts::publish(script, life, ("pod-a", false), "bound into the first pod, to read and write").await?;
    parts::write(script, &first).await?;
    parts::stats(script, life, &first).await?;
    listed(script, life).await?;
    parts::unpublish(script, life, "pod-a").await?;
    let second = parts::publish(script, life, ("pod-b", true), "bound into a second pod, to read only").await?;
    parts::read(script, &second, "the second pod reads what the first one wrote").await?;
    refused_write(script, &second).await?;
    parts::unpublish(script, life, "pod-b").await?;
    let volume_id = life.volume().map(|volume| volume.volume_id.clone()).unwrap_or_default();
    parts::finish(script, life).await?;
    parts::delete_again(script, life.plugin(), &volume_id).await
}

async fn capacity(script: &mut Script<'_>, plugin: &Plugin) -> Result<(), Failed> {
    if !plugin.offers().controller(ControllerRpc::GetCapacity) {
        return Ok(());
    }
    let step = async {
        match plugin.get_capacity().await? {
            room if room > 0 => Ok(came(format!("{} are free on this node", bytes(room)))),
            room => Err(Mismatch(format!("{room} bytes"))),
        }
    };
    script.step("GetCapacity", "the free bytes of this node", step).await
}

async fn listed(script: &mut Script<'_>, life: &Life) -> Result<(), Failed> {
    if !life.plugin().offers().controller(ControllerRpc::ListVolumes) {
        return Ok(());
    }
    let step = async {
        let volumes = life.plugin().list_volumes(0, "").await?.volumes;
        let own = &life.volume()?.volume_id;
        match volumes.iter().any(|volume| volume.volume_id == *own) {
            true => Ok(came(format!("{}, and this one is among them", count(volumes.len(), "volume")))),
            false => Err(Mismatch(format!("{} are listed, not this one", volumes.len()))),
        }
    };
    script.step("ListVolumes", "a list with this volume", step).await
}

async fn refused_write(script: &mut Script<'_>, volume: &std::path::Path) -> Result<(), Failed> {
    let step = async {
        match volume_io::refused_write(volume).await? {
            Some(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                Ok(came("the second pod tries to write: the kernel says read-only"))
            }
            Some(error) => Err(Mismatch(format!("another error: {error}"))),
            None => Err(Mismatch("it was written".to_owned())),
        }
    };
    script.step("(write)", "the error of a read-only file system", step).await
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
