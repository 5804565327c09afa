//! A raw block device.

use std::path::Path;

use crate::client::Life;
use crate::demo::script::{Failed, Mismatch, Script, came};
use crate::demo::stories::{bytes, parts};
use crate::demo::volume_io;

/// A whole life of a volume that a pod uses as a device.
pub(crate) async fn disk(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    parts::create(script, life).await?;
    parts::stage(script, life, "attached to the node, without a file system").await?;
    let device = parts::publish(script, life, ("pod-a", false), "a device node in the pod").await?;
    use_device(script, life, &device).await?;
    parts::unpublish(script, life, "pod-a").await?;
    parts::finish(script, life).await
}

async fn use_device(script: &mut Script<'_>, life: &Life, device: &Path) -> Result<(), Failed> {
    let step = async {
        let asked = life.request().required_bytes;
        let size = volume_io::write_device(device).await?;
        match i64::try_from(size) {
            Ok(size) if size >= asked => Ok(came(format!("the last block of {} written and read back", bytes(size)))),
            _ => Err(Mismatch(format!("{size} bytes for {asked}"))),
        }
    };
    script.step("(write)", "a device of the size that was asked for", step).await
}
