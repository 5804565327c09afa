//! Steps that several lives have in common.

use std::path::{Path, PathBuf};

use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::volume_usage::Unit;
use dunnage_driver_api::Bytes;

use crate::client::{Error, Life, Plugin, Result, code_name};
use crate::demo::script::{Came, Failed, Mismatch, Script, came, came_with};
use crate::demo::volume_io;
use tonic::Code;

/// A mebibyte.
pub(crate) const MIB: i64 = 1 << 20;

/// A size as people write it.
pub(crate) fn bytes(bytes: i64) -> String {
    Bytes::new(bytes.unsigned_abs()).to_string()
}

/// An id may have 128 letters, and a line has not: its end tells volumes apart.
pub(super) fn short(volume_id: &str) -> String {
    const SHOWN: usize = 12;
    match volume_id.char_indices().rev().nth(SHOWN) {
        Some((start, _)) => format!("\u{2026}{}", &volume_id[start..]),
        None => volume_id.to_owned(),
    }
}

pub(super) async fn create(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    let step = async {
        let (name, asked) = (life.request().name.clone(), life.request().required_bytes);
        let volume = life.create().await?;
        let size = match volume.capacity_bytes {
            0 => "of any size".to_owned(),
            size if size < asked => return Err(Mismatch(format!("{} for {}", bytes(size), bytes(asked)))),
            size => format!("of {}", bytes(size)),
        };
        Ok(came(format!("{name:?} {size}, id {}", short(&volume.volume_id))))
    };
    script.step("CreateVolume", "a volume of at least the size that was asked for", step).await
}

/// The orchestrator that did not hear the answer asks again.
pub(super) async fn create_again(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    let step = async {
        let first = life.volume()?.clone();
        let again = life.create().await?;
        if again == first {
            Ok(came("asked again: the same answer, no second volume"))
        } else {
            Err(Mismatch(format!("{} the first time, {} the second", first.volume_id, again.volume_id)))
        }
    };
    script.step("CreateVolume again", "the same answer as the first time", step).await
}

/// Attaching and staging, as far as the plugin does these; `meaning` is what staging is good for here.
pub(super) async fn stage(script: &mut Script<'_>, life: &mut Life, meaning: &str) -> Result<(), Failed> {
    let prepared = life.prepare(&["pod-a", "pod-b"]).await;
    if let Err(error) = prepared {
        return script.step("(orchestrator)", "folders for the paths", async { Err(error.into()) }).await;
    }
    let offers = life.plugin().offers().clone();
    if offers.attaches() {
        let step = async { Ok(came_with("attached to this node", life.attach().await?)) };
        script.step("ControllerPublishVolume", "the volume at this node", step).await?;
    }
    if offers.stages() {
        let step = async { Ok(came_with(meaning, life.stage().await?)) };
        script.step("NodeStageVolume", "the volume at its staging path", step).await?;
    }
    Ok(())
}

pub(super) async fn publish(
    script: &mut Script<'_>,
    life: &mut Life,
    (pod, readonly): (&str, bool),
    meaning: &str,
) -> Result<PathBuf, Failed> {
    let step = async { Ok(came_with(meaning, life.publish(pod, readonly).await?)) };
    script.step("NodePublishVolume", "the volume at the pod's path", step).await
}

pub(super) async fn unpublish(script: &mut Script<'_>, life: &mut Life, pod: &str) -> Result<(), Failed> {
    let step = async {
        life.unpublish(pod).await?;
        match life.target(pod).symlink_metadata() {
            Ok(_) => Err(Mismatch(format!("{} is still there", life.target(pod).display()))),
            Err(_) => Ok(came("taken from the pod; the target path is gone")),
        }
    };
    script.step("NodeUnpublishVolume", "the target path gone", step).await
}

/// Unstaging, where it is staged.
pub(super) async fn unstage(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    if !life.is_staged() {
        return Ok(());
    }
    let step = async { Ok(came_with("taken from the node", life.unstage().await?)) };
    script.step("NodeUnstageVolume", "the staging path free", step).await
}

/// The end of a volume that is not published any more, with what the orchestrator repeats.
pub(super) async fn finish(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    unstage(script, life).await?;
    if life.plugin().offers().attaches() {
        let step = async { Ok(came_with("detached from this node", life.detach().await?)) };
        script.step("ControllerUnpublishVolume", "the volume detached", step).await?;
    }
    let step = async {
        life.delete().await?;
        life.clear().await?;
        Ok(came("gone, with all its data"))
    };
    script.step("DeleteVolume", "the volume gone", step).await
}

pub(super) async fn delete_again(script: &mut Script<'_>, plugin: &Plugin, volume_id: &str) -> Result<(), Failed> {
    let step = async {
        plugin.delete_volume(volume_id).await?;
        Ok(came("asked again: it is gone, which is what was wanted"))
    };
    script.step("DeleteVolume again", "success, since the volume is gone", step).await
}

pub(super) async fn write(script: &mut Script<'_>, volume: &Path) -> Result<(), Failed> {
    let step = async {
        volume_io::write(volume).await?;
        Ok(came(format!("the first pod writes {}", volume_io::FILE)))
    };
    script.step("(write)", "a file in the volume", step).await
}

/// The file is what was written, by whatever way it is read.
pub(super) async fn read(script: &mut Script<'_>, volume: &Path, meaning: &str) -> Result<(), Failed> {
    let step = async {
        let text = volume_io::read(volume).await?;
        if text == volume_io::TEXT { Ok(came(meaning)) } else { Err(Mismatch(format!("the file holds {text:?}"))) }
    };
    script.step("(read)", "the file as the first pod wrote it", step).await
}

pub(super) async fn stats(script: &mut Script<'_>, life: &Life, volume: &Path) -> Result<(), Failed> {
    if !life.plugin().offers().node(NodeRpc::GetVolumeStats) {
        return Ok(());
    }
    let step = async {
        let volume_id = &life.volume()?.volume_id;
        let usage = life.plugin().node_get_volume_stats(volume_id, volume, life.staging().as_deref()).await?;
        match usage.iter().find(|usage| usage.unit() == Unit::Bytes) {
            Some(usage) if usage.total > 0 => Ok(came(format!("{} of {} used", bytes(usage.used), bytes(usage.total)))),
            _ => Err(Mismatch(format!("no size in bytes among {} usages", usage.len()))),
        }
    };
    script.step("NodeGetVolumeStats", "the volume's size and use in bytes", step).await
}

/// A call that must be refused with `code`: shows the plugin's words.
pub(super) fn refused<T>(result: Result<T>, code: Code, meaning: &str) -> Result<Came, Mismatch> {
    match result {
        Err(Error::Rpc { code: answered, message, .. }) if answered == code => {
            let text = format!("{meaning}: {}", code_name(code));
            Ok(Came { text, said: Some(message), value: () })
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err(Mismatch("it was accepted".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_id_is_shown_by_its_end() {
        assert_eq!(short("short"), "short");
        assert_eq!(short("0123456789abcdefghij"), "\u{2026}789abcdefghij");
    }

    #[test]
    fn only_the_expected_code_counts_as_a_refusal() {
        let answered = |code| Err::<(), _>(Error::Rpc { rpc: "CreateVolume", code, message: "no".to_owned() });
        assert!(refused(answered(Code::InvalidArgument), Code::InvalidArgument, "bad").is_ok());
        assert!(refused(answered(Code::Internal), Code::InvalidArgument, "bad").is_err());
        assert!(refused(Ok(()), Code::InvalidArgument, "bad").is_err());
    }
}
