//! Repairing a file system that says of itself that it has errors.
//!
//! A file system that was in use when its machine died needs no check: mounting it replays its log. Only ext4 has a
//! repair that is safe without a person, and only where its superblock notes an error is it run. XFS is never repaired
//! here, and its log never thrown away: that is a decision about data.

use std::path::Path;
use std::time::Duration;

use dunnage_driver_api::{Context, Error, FsType, Result, Tool};

use super::probe::FileSystem;

/// Repairs ext4.
pub(super) const E2FSCK: Tool = Tool { program: "e2fsck", package: "e2fsprogs" };

/// A check reads all metadata, which takes long on a large file system.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Repairs what can be repaired safely.
///
/// # Errors
/// FailedPrecondition with the program's words where a person must decide.
pub(super) fn mend(cx: &Context, path: &Path, found: &FileSystem) -> Result<()> {
    if !found.has_errors || found.fs_type != FsType::Ext4 {
        return Ok(());
    }
    check_ext4(cx, path, &["-p"])
}

/// Whether a file system that was found where a formatting may have been cut off was finished. Only mke2fs may leave its
/// mark on a disk before the rest: the others flush in between.
///
/// # Errors
/// Where the program cannot be run.
pub(super) fn is_whole(cx: &Context, path: &Path, found: &FileSystem) -> Result<bool> {
    if found.fs_type != FsType::Ext4 {
        return Ok(true);
    }
    let command = E2FSCK.command().args(["-f", "-n"]).arg(path).timeout(TIMEOUT);
    let output = cx.commands.run(&command)?;
    match output.status.code() {
        Some(0) => Ok(true),
        // Errors that were left as they are. Any other end says nothing of the disk.
        Some(4) => Ok(false),
        _ => Err(Error::internal(format!("e2fsck could not look at {}: {}", path.display(), output.status))
            .caused_by(Error::internal(output.stderr.trim().to_owned()))),
    }
}

/// Checks an ext4 and repairs what is safe to.
pub(super) fn check_ext4(cx: &Context, path: &Path, options: &[&str]) -> Result<()> {
    let command = E2FSCK.command().args(options).arg(path).timeout(TIMEOUT);
    let output = cx.commands.run(&command)?;
    // 0: nothing was wrong. 1, 2: mended. Everything else was left as it is.
    match output.status.code() {
        Some(0..=2) => Ok(()),
        _ => Err(Error::precondition(format!(
            "the ext4 file system on {} has errors that e2fsck -p does not repair: make a copy of the device, then run \
             e2fsck on it by hand",
            path.display()
        ))
        .caused_by(Error::internal(format!("{} {}", output.stdout.trim(), output.stderr.trim())))),
    }
}
