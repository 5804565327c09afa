//! What is wrong with a volume, as this node sees it (CSI NodeGetVolumeHealth).

use std::os::fd::OwnedFd;
use std::path::Path;

use dunnage_driver_api::{HealthFinding, HealthStatus, Result, VolumeId};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use super::place::{Place, Seen};
use super::record::Device;
use super::root::Root;
use super::{ANSWER, Engine};

impl Engine {
    /// What is wrong with the volume here; nothing for one that was never brought to this node. Asks the file system
    /// itself and may hang with it: the caller bounds it.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn volume_health(&self, volume: &VolumeId) -> Result<Vec<HealthFinding>> {
        let record = self.records.load(volume)?;
        let mut findings = Vec::new();
        if let Some(stage) = &record.stage
            && let Some(device) = &stage.device
        {
            let asked_read_only = record.published.values().any(|published| published.asked.is_read_only());
            findings.extend(device_findings(device, stage.asked.block && asked_read_only));
            if let Some(mounted) = &device.filesystem {
                let missing =
                    inaccessible("StagingMountMissing", "is not mounted where it was staged", stage.path.as_path());
                findings.extend(noted_errors(stage.path.as_path(), mounted.root, HealthFinding::of_file_system));
                findings.extend(mount_finding(stage.path.as_path(), mounted.root, missing, mounted.read_only));
            }
        }
        for (path, target) in &record.published {
            let missing = inaccessible("TargetMountMissing", "is not mounted where it was published", path.as_path());
            let found = if target.asked.block {
                (look(path.as_path()) != Some(Seen::Mount(target.root))).then_some(missing)
            } else if target.served {
                let (at, root, may_be, read_only) =
                    (path.as_path().to_owned(), target.root, missing.clone(), target.read_only);
                let silent = inaccessible("ServerSilent", "has a server that does not answer", path.as_path());
                let answered =
                    self.questions.ask(&root.device(), ANSWER, move || mount_finding(&at, root, may_be, read_only))?;
                answered.unwrap_or(Some(silent))
            } else {
                mount_finding(path.as_path(), target.root, missing, target.read_only)
            };
            findings.extend(found);
            if record.stage.is_none() {
                // A directory of a store, whose file system it has.
                let of_store = |folder| HealthFinding::of_store(folder, path.as_path());
                findings.extend(noted_errors(path.as_path(), target.root, of_store));
            }
        }
        let mut reasons = std::collections::BTreeSet::new();
        findings.retain(|finding| reasons.insert(finding.reason));
        Ok(findings)
    }
}

fn look(path: &Path) -> Option<Seen> {
    Place::find(path).ok()??.look().ok()
}

fn inaccessible(reason: &'static str, what: &str, path: &Path) -> HealthFinding {
    let message = format!("the volume {what}: {}", path.display());
    HealthFinding::new(HealthStatus::Inaccessible, reason, message)
}

fn device_findings(device: &Device, read_only_by_us: bool) -> Option<HealthFinding> {
    if !device.number.size().is_ok_and(|size| size.get() > 0) {
        return Some(inaccessible("DeviceGone", "has lost its device", &device.path));
    }
    let read_only = device.number.is_read_only().unwrap_or_default();
    (read_only && !device.read_only && !read_only_by_us)
        .then(|| inaccessible("DeviceReadOnly", "is on a device that has become read-only", &device.path))
}

/// What the file system has noted of its own damage, where it still answers.
fn noted_errors(path: &Path, root: Root, tell: impl FnOnce(OwnedFd) -> Vec<HealthFinding>) -> Vec<HealthFinding> {
    let Ok(Some(place)) = Place::find(path) else { return Vec::new() };
    match place.look() {
        Ok(Seen::Mount(seen)) if seen == root => {}
        _ => return Vec::new(),
    }
    open_folder(&place).map(tell).unwrap_or_default()
}

fn open_folder(place: &Place) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(place.open()?, ".", flags, Mode::empty())?)
}

/// Asks the mounted file system to flush its root: one that has shut itself down, or lost its device, refuses that,
/// while much else is still answered from memory.
fn mount_finding(path: &Path, root: Root, missing: HealthFinding, may_be_read_only: bool) -> Option<HealthFinding> {
    let Ok(Some(place)) = Place::find(path) else { return Some(missing) };
    match place.look() {
        Ok(Seen::Mount(seen)) if seen == root => {}
        Ok(Seen::Failed(mount)) if mount.is_of(root) => {}
        _ => return Some(missing),
    }
    let asked = || -> std::io::Result<bool> {
        let root = open_folder(&place)?;
        rustix::fs::fsync(&root)?;
        Ok(rustix::fs::fstatvfs(&root)?.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    match asked() {
        Err(error) => {
            Some(inaccessible("FilesystemError", &format!("has a file system that does not answer ({error})"), path))
        }
        Ok(true) if !may_be_read_only => {
            Some(inaccessible("FilesystemReadOnly", "has a file system that has become read-only", path))
        }
        Ok(_) => None,
    }
}
