//! Making file systems, and being sure that nothing is lost by it.
//!
//! A program that formats may be killed in the middle, or the power may fail; what it leaves is neither blank nor a file
//! system, and must not be taken for anybody's data. So before it runs a file says, durably, that this very device was
//! blank. While that file exists, bytes of no known form on the device are ours and may be formatted again; a finished
//! file system or any other known mark never is. The file goes, durably, before the new file system is mounted for the
//! first time, so that it never stands beside a user's data.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunnage_driver_api::{
    Bytes, Command, Context, DeviceSource, Error, ErrorKind, FsType, Identity, Result, Tool, VolumeId,
};
use serde::{Deserialize, Serialize};

use super::kernel::Version;
use super::probe::FileSystem;
use super::record;

/// Makes ext4.
pub(super) const MKFS_EXT4: Tool = FsType::Ext4.mkfs();
/// Makes XFS.
pub(super) const MKFS_XFS: Tool = FsType::Xfs.mkfs();
/// Makes btrfs.
pub(super) const MKFS_BTRFS: Tool = FsType::Btrfs.mkfs();

/// Formatting is quick on what reads zero and slow where a journal is written through to slow disks.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Where xfsprogs has the features of each kernel with long support.
const XFS_PROFILES: &str = "/usr/share/xfsprogs/mkfs";

/// The file that says of a device that it was blank before it was formatted.
#[derive(Debug)]
pub(super) struct Intent {
    path: PathBuf,
}

/// The form of the file that this release writes; it reads this one and the one before.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Blank {
    version: u32,
    identity: Identity,
}

impl Intent {
    /// The one of a volume, in the engine's folder. It outlives a boot, unlike a stage record.
    pub(super) fn of(folder: &Path, volume: &VolumeId) -> Self {
        Self { path: folder.join(format!("{volume}.formatting")) }
    }

    /// Whether it was written for this device. A file that was cut short was never followed by a formatting.
    ///
    /// # Errors
    /// FailedPrecondition where a later release wrote it: what that means is not known here.
    pub(super) fn names(&self, identity: &Identity) -> Result<bool> {
        match fs::read(&self.path) {
            Ok(text) if record::is_later(&text, VERSION) => Err(Error::precondition(format!(
                "{} was written by a later release, which was formatting the device: run that one",
                self.path.display()
            ))),
            Ok(text) => Ok(serde_json::from_slice(&text).is_ok_and(|blank: Blank| blank.identity == *identity)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error("read", error)),
        }
    }

    fn write(&self, identity: &Identity) -> Result<()> {
        let text = serde_json::to_vec(&Blank { version: VERSION, identity: identity.clone() })
            .map_err(|error| Error::internal("cannot write that a device is blank").caused_by(error))?;
        record::replace(&self.path, &text)
            .and_then(|file| file.sync_all())
            .and_then(|()| self.flush_folder())
            .map_err(|error| self.error("write", error))
    }

    /// Takes it away, durably.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path).and_then(|()| self.flush_folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("remove", error)),
            _ => Ok(()),
        }
    }

    fn flush_folder(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }

    fn error(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}

/// Formats a device that was found blank, or with what an earlier formatting left of it (`again`).
pub(super) fn format(
    cx: &Context,
    source: &DeviceSource,
    size: Bytes,
    fs_type: FsType,
    intent: &Intent,
    again: bool,
) -> Result<FileSystem> {
    let command = command(cx, fs_type, source.reads_zero, again)?.arg(&source.path).timeout(TIMEOUT).dies_with_host();
    if !again {
        intent.write(&source.identity)?;
    }
    let ran = cx.commands.run(&command);
    if ran.as_ref().is_err_and(|error| error.kind() == ErrorKind::FailedPrecondition) && !again {
        // The program is not there: the device is as blank as before.
        intent.remove()?;
    }
    ran.and_then(|output| output.success(&command))
        .map_err(|error| error.during("format the volume").with("device", source.path.display()))?;
    Ok(FileSystem { fs_type, size, has_errors: false })
}

/// Discarding is left out: the device is blank. So is everything that only matters where old data might shine through,
/// on a device that reads zero wherever nothing was written.
fn command(cx: &Context, fs_type: FsType, reads_zero: bool, again: bool) -> Result<Command> {
    let command = match fs_type {
        FsType::Ext4 => {
            let journal = if reads_zero { ",lazy_journal_init=1" } else { "" };
            let extended = format!("nodiscard,lazy_itable_init=1{journal}");
            let command = MKFS_EXT4.command().args(["-q", "-m", "0", "-E", &extended]);
            // e2fsprogs 1.47 makes orphan files, which the kernel knows since 5.15.
            if Version::running()? < Version(5, 15) && tool_version(cx, MKFS_EXT4)? >= Some(Version(1, 47)) {
                command.args(["-O", "^orphan_file"])
            } else {
                command
            }
        }
        FsType::Xfs => {
            let command = MKFS_XFS.command().args(["-q", "-K"]);
            match xfs_profile(Path::new(XFS_PROFILES), tool_version(cx, MKFS_XFS)?, Version::running()?) {
                Some(profile) => command.arg("-c").arg(format!("options={}", profile.display())),
                None => command,
            }
        }
        FsType::Btrfs => MKFS_BTRFS.command().args(["-q", "-K"]),
    };
    Ok(match fs_type {
        // These two refuse what looks like a file system; so does an unfinished one of theirs.
        FsType::Xfs | FsType::Btrfs if again => command.arg("-f"),
        _ => command,
    })
}

/// The features for this kernel, where the program is newer than it and would use later ones.
fn xfs_profile(folder: &Path, tool: Option<Version>, kernel: Version) -> Option<PathBuf> {
    if tool? <= kernel {
        return None;
    }
    let profile = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let version = Version::first_in(path.file_name()?.to_str()?.strip_prefix("lts_")?)?;
        (version <= kernel).then_some((version, path))
    };
    fs::read_dir(folder).ok()?.filter_map(profile).max().map(|(_, path)| path)
}

/// The version a program says it has.
fn tool_version(cx: &Context, tool: Tool) -> Result<Option<Version>> {
    let output = cx.commands.run(&tool.command().arg("-V"))?;
    Ok(Version::first_in(&output.stdout).or_else(|| Version::first_in(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_newer_than_the_kernel_gets_the_latest_profile_that_the_kernel_knows() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lts_5.4.conf", "lts_5.15.conf", "lts_6.1.conf", "lts_6.6.conf", "dax_x86_64.conf"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let profile = |tool, kernel| {
            let path = xfs_profile(folder.path(), Some(tool), kernel)?;
            Some(path.file_name()?.to_str()?.to_owned())
        };
        assert_eq!(profile(Version(6, 13), Version(6, 1)).as_deref(), Some("lts_6.1.conf"));
        assert_eq!(profile(Version(6, 13), Version(5, 14)).as_deref(), Some("lts_5.4.conf"));
        assert_eq!(profile(Version(6, 1), Version(6, 18)), None);
    }

    #[test]
    fn an_intent_is_only_for_the_device_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let intent = Intent { path: folder.path().join("v.formatting") };
        let (own, other) = (Identity("a".into()), Identity("b".into()));
        assert!(!intent.names(&own).unwrap());
        intent.write(&own).unwrap();
        assert!(intent.names(&own).unwrap() && !intent.names(&other).unwrap());
        fs::write(&intent.path, "{\"vers").unwrap();
        assert!(!intent.names(&own).unwrap());
        intent.remove().unwrap();
        intent.remove().unwrap();
    }
}
