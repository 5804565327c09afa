//! A disk with a file system that grows.

use std::path::{Path, PathBuf};

use tonic::Code;

use crate::client::{Life, Result};
use crate::demo::script::{Failed, Mismatch, Script, came, came_with};
use crate::demo::stories::{bytes, parts};
use crate::demo::volume_io;

/// The kernel's number of CAP_SYS_RESOURCE, without which it grows no mounted ext4.
const CAP_SYS_RESOURCE: u32 = 24;

/// A whole life with an expansion: while the volume is in use, where this process may do that.
pub(crate) async fn file_system(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    parts::create(script, life).await?;
    parts::stage(script, life, "attached, formatted with ext4 and mounted once on the node").await?;
    let mut volume = parts::publish(script, life, ("pod-a", false), "bound into the pod").await?;
    parts::write(script, &volume).await?;
    parts::stats(script, life, &volume).await?;
    if life.plugin().offers().expands() {
        volume = grow(script, life, volume).await?;
        parts::read(script, &volume, "the file is as it was").await?;
    }
    parts::unpublish(script, life, "pod-a").await?;
    parts::finish(script, life).await
}

/// Twice the size; statfs is what the pod sees.
async fn grow(script: &mut Script<'_>, life: &mut Life, mut volume: PathBuf) -> Result<PathBuf, Failed> {
    let before = {
        let step = async {
            let before = volume_io::total_bytes(&volume).await?;
            Ok(came_with(format!("the pod sees {}", statfs(before)), before))
        };
        script.step("(statfs)", "the size of the file system", step).await?
    };
    if expand_volume(script, life).await? {
        if may_grow_mounted() {
            let step = async {
                expand_node(life, &volume).await?;
                Ok(came("the file system has grown while the pod uses it"))
            };
            script.step("NodeExpandVolume", "a file system of the new size", step).await?;
        } else {
            volume = grow_by_staging_again(script, life, &volume).await?;
        }
    }
    let step = async {
        match volume_io::total_bytes(&volume).await? {
            // A file system keeps some for itself, but never half of what was added.
            after if after > before + life.request().required_bytes.unsigned_abs() / 2 => {
                Ok(came(format!("the pod sees {}", statfs(after))))
            }
            after => Err(Mismatch(format!("{} before, {} after", statfs(before), statfs(after)))),
        }
    };
    script.step("(statfs)", "more room than before", step).await?;
    Ok(volume)
}

/// Whether the node has to follow.
async fn expand_volume(script: &mut Script<'_>, life: &Life) -> Result<bool, Failed> {
    let wanted = life.request().required_bytes * 2;
    let step = async {
        let volume_id = &life.volume()?.volume_id;
        let (now, node_too) = life.plugin().controller_expand_volume(volume_id, wanted, life.capability()).await?;
        if now < wanted {
            return Err(Mismatch(format!("{} for {}", bytes(now), bytes(wanted))));
        }
        let rest = if node_too { ", and the node has to follow" } else { "" };
        Ok(came_with(format!("{} now{rest}", bytes(now)), node_too))
    };
    script.step("ControllerExpandVolume", "a volume of twice the size", step).await
}

async fn expand_node(life: &Life, volume: &Path) -> Result<()> {
    let volume_id = &life.volume()?.volume_id;
    let how = (life.request().required_bytes * 2, life.capability());
    life.plugin().node_expand_volume(volume_id, volume, life.staging().as_deref(), how).await.map(drop)
}

/// What the plugin tells an orchestrator to do that may not grow what is mounted, as in many a container.
async fn grow_by_staging_again(script: &mut Script<'_>, life: &mut Life, volume: &Path) -> Result<PathBuf, Failed> {
    let step = async {
        let meaning = "this process may not grow what is mounted";
        parts::refused(expand_node(life, volume).await, Code::FailedPrecondition, meaning)
    };
    script.step("NodeExpandVolume", "FAILED_PRECONDITION, without CAP_SYS_RESOURCE", step).await?;
    parts::unpublish(script, life, "pod-a").await?;
    parts::unstage(script, life).await?;
    parts::stage(script, life, "staged again: the file system grows before it is mounted").await?;
    parts::publish(script, life, ("pod-a", false), "bound into the pod").await
}

fn may_grow_mounted() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // Where procfs does not say, the plugin does.
    bits.is_none_or(|bits| bits >> CAP_SYS_RESOURCE & 1 == 1)
}

fn statfs(total: u64) -> String {
    format!("{:.1} MiB", total as f64 / f64::from(1 << 20))
}
