//! What is wrong with the disk of a volume.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use dunnage_driver_api::{Context, Health, HealthFinding, HealthStatus, Result, Volume};
use rustix::fs::OFlags;

use crate::store::Store;

/// How long a disk may take for three blocks.
const WITHIN: Duration = Duration::from_secs(1);
/// What every disk reads at once, past the page cache: no logical block is larger.
const BLOCK: usize = 64 << 10;

impl Health for Store {
    fn health(&self, _: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let Some(record) = self.records.get(&volume.key)? else { return Ok(Vec::new()) };
        let disk = &record.extra.disk;
        let one = |status, reason, message: String| Ok(vec![HealthFinding::new(status, reason, message)]);
        let Some(device) = self.kernel.find(disk)? else {
            let message =
                format!("the disk {disk} is not on this node: put it back, or restore the volume from a backup");
            return one(HealthStatus::Inaccessible, "DiskMissing", message);
        };
        let path = self.kernel.path(&device);
        if let Some(state) = device.state().filter(|state| !matches!(state.as_str(), "running" | "live" | "quiesce")) {
            let message =
                format!("the kernel says that {} is {state}: see the kernel log, and its cables", path.display());
            return one(HealthStatus::Inaccessible, "DiskOffline", message);
        }
        if device.size < record.volume.capacity.get() {
            let (has, wants) = (device.size, record.volume.capacity.get());
            let message = format!("{} has {has} bytes and its volume {wants}: it was made smaller", path.display());
            return one(HealthStatus::DataLoss, "DiskCutShort", message);
        }
        let mut findings = Vec::new();
        if device.is_read_only() {
            let message = format!("{} takes no writes: see the kernel log for the reason", path.display());
            findings.push(HealthFinding::new(HealthStatus::Degraded, "DiskReadOnly", message));
        }
        let (kernel, asked, id) = (self.kernel.clone(), device.clone(), disk.clone());
        let read = move || {
            let (file, now) = kernel.open(&id, &asked, OFlags::RDONLY | OFlags::DIRECT)?;
            read(&file, now.size)
        };
        findings.extend(match self.questions.ask(disk, WITHIN, read)? {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(HealthFinding::new(
                HealthStatus::Degraded,
                "DiskReadErrors",
                format!(
                    "{} cannot be read everywhere ({error}): save what is on it, and replace the disk",
                    path.display()
                ),
            )),
            None => Some(HealthFinding::new(
                HealthStatus::Inaccessible,
                "DiskSilent",
                format!("{} does not answer: see the kernel log, and its cables", path.display()),
            )),
        });
        Ok(findings)
    }
}

/// Reads a block at the beginning, in the middle and at the end.
fn read(disk: &File, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 2 * BLOCK];
    let aligned = buffer.as_ptr().align_offset(BLOCK);
    let last = (size / BLOCK as u64).saturating_sub(1);
    for block in [0, last / 2, last] {
        disk.read_exact_at(&mut buffer[aligned..aligned + BLOCK], block * BLOCK as u64)?;
    }
    Ok(())
}
