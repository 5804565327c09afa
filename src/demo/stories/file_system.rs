//! A disk with a file system that grows under a running pod.

use std::path::Path;

use crate::client::Life;
use crate::demo::script::{Failed, Mismatch, Script, came, came_with};
use crate::demo::stories::{bytes, parts};
use crate::demo::volume_io;

/// A whole life with an expansion while the volume is in use.
pub(crate) async fn file_system(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    parts::create(script, life).await?;
    parts::stage(script, life, "attached, formatted with ext4 and mounted once on the node").await?;
    let volume = parts::publish(script, life, ("pod-a", false), "bound into the pod").await?;
    parts::write(script, &volume).await?;
    parts::stats(script, life, &volume).await?;
    if life.plugin().offers().expands() {
        grow(script, life, &volume).await?;
        parts::read(script, &volume, "the file is as it was, and the pod never stopped").await?;
    }
    parts::unpublish(script, life, "pod-a").await?;
    parts::finish(script, life).await
}

/// Twice the size, online; statfs is what the pod sees.
async fn grow(script: &mut Script<'_>, life: &Life, volume: &Path) -> Result<(), Failed> {
    let wanted = life.request().required_bytes * 2;
    let step = async {
        let before = volume_io::total_bytes(volume).await?;
        Ok(came_with(format!("the pod sees {}", statfs(before)), before))
    };
    let before = script.step("(statfs)", "the size of the file system", step).await?;
    let plugin = life.plugin();
    let step = async {
        let volume_id = &life.volume()?.volume_id;
        let (now, node_too) = plugin.controller_expand_volume(volume_id, wanted, life.capability()).await?;
        if now < wanted {
            return Err(Mismatch(format!("{} for {}", bytes(now), bytes(wanted))));
        }
        let rest = if node_too { ", and the node has to follow" } else { "" };
        Ok(came_with(format!("{} now{rest}", bytes(now)), node_too))
    };
    if script.step("ControllerExpandVolume", "a volume of twice the size", step).await? {
        let step = async {
            let volume_id = &life.volume()?.volume_id;
            let how = (wanted, life.capability());
            plugin.node_expand_volume(volume_id, volume, life.staging().as_deref(), how).await?;
            Ok(came("the file system has grown while it is mounted"))
        };
        script.step("NodeExpandVolume", "a file system of the new size", step).await?;
    }
    let step = async {
        match volume_io::total_bytes(volume).await? {
            // A file system keeps some for itself, but never half of what was added.
            after if after > before + life.request().required_bytes.unsigned_abs() / 2 => {
                Ok(came(format!("the pod sees {}", statfs(after))))
            }
            after => Err(Mismatch(format!("{} before, {} after", statfs(before), statfs(after)))),
        }
    };
    script.step("(statfs)", "more room than before", step).await
}

fn statfs(total: u64) -> String {
    format!("{:.1} MiB", total as f64 / f64::from(1 << 20))
}
