//! Making file systems, and being sure that nothing is lost by it.
//!
//! A program that formats may be killed in the middle, or the power may fail; what it leaves is neither blank nor a file
//! system, and must not be taken for anybody's data. So before it runs a file says, durably, that this very device was
//! blank. While that file says so, bytes of no known form on the device are ours and may be formatted again; a finished
//! file system or any other known mark never is. It says so no more, durably, before the new file system is mounted for
//! the first time, so that it never stands beside a user's data.
//!
//! A device that other nodes can reach is another matter: what is on it now may be theirs. There the file also names the
//! [attachment](super::holding) for which it was written, and is believed for that one alone.
//!
//! This process may be killed as well, and the program runs on. So the file is locked, and the program holds the lock
//! until it ends: who finds it taken leaves the device alone.
//!
//! What a cut leaves at each step, be it of this process or of the power:
//! - the file made, or half of it written: it names no device, and the device is blank;
//! - written and flushed: it names a device that is blank, or has a part of a file system, or the whole;
//! - its first byte struck out, but not flushed: it may name the device again. It is there still, so that the next call
//!   strikes it out and flushes it before anything is mounted;
//! - struck out and flushed: it names no device, whether it is removed, or is there again after the power failed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Bytes, Command, Context, Error, ErrorKind, FsType, Identity, Result, Tool, VolumeId};
use serde::{Deserialize, Serialize};

use super::holding::{Brought, Holding};
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
    /// The file, locked; of most volumes there is none.
    file: Option<File>,
}

/// The form of the file that this release writes; it reads this one and the one before.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Blank {
    version: u32,
    identity: Identity,
    /// The attachment that this node had the device by, where other nodes can reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attachment: Option<String>,
}

/// What an intent says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing.
    None,
    /// That it was blank, and nobody else can have had it since.
    Blank,
    /// That it was blank once. Other nodes may have had it since.
    Doubted,
}

impl Intent {
    /// The one of a volume, in the engine's folder, once no program formats its device any more. It outlives a boot,
    /// unlike a stage record.
    ///
    /// # Errors
    /// FailedPrecondition where a program still does at `until`: one that was started before this process.
    pub(super) fn settled(folder: &Path, volume: &VolumeId, until: Instant) -> Result<Self> {
        let mut intent = Self { path: folder.join(format!("{volume}.formatting")), file: None };
        match File::options().read(true).write(true).open(&intent.path) {
            Ok(file) => {
                intent.lock(&file, until)?;
                intent.file = Some(file);
                Ok(intent)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(intent),
            Err(error) => Err(intent.error("open", error)),
        }
    }

    fn lock(&self, file: &File, until: Instant) -> Result<()> {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                // Waiting for a lock has no end of its own, and the thread could not be told to leave.
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::precondition(format!(
                        "the volume is still being formatted by a program that was started before this host, so its \
                         device is left alone: wait for the program, or end it (`fuser {}` tells which it is)",
                        self.path.display()
                    ))
                    .retry(true));
                }
                Err(TryLockError::Error(error)) => return Err(self.error("lock", error)),
            }
        }
    }

    /// What it says of this device. A file that was cut short was never followed by a formatting.
    ///
    /// # Errors
    /// FailedPrecondition where a later release wrote it: what that means is not known here.
    pub(super) fn word(&self, source: &Brought) -> Result<Word> {
        let Some(mut file) = self.file.as_ref() else { return Ok(Word::None) };
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).map_err(|error| self.error("read", error))?;
        if record::is_later(&text, VERSION) {
            return Err(Error::precondition(format!(
                "{} was written by a later release, which was formatting the device: run that one",
                self.path.display()
            )));
        }
        Ok(match serde_json::from_slice::<Blank>(&text) {
            Ok(blank) if blank.identity == source.identity => match &source.holding {
                Holding::OfNode => Word::Blank,
                Holding::Attached { word, .. } if blank.attachment.as_ref() == Some(word) => Word::Blank,
                Holding::Attached { .. } | Holding::Shared => Word::Doubted,
            },
            _ => Word::None,
        })
    }

    fn write(&mut self, source: &Brought) -> Result<()> {
        let (identity, attachment) = (source.identity.clone(), source.holding.attachment().map(str::to_owned));
        let text = serde_json::to_vec(&Blank { version: VERSION, identity, attachment })
            .map_err(|error| Error::internal("cannot write that a device is blank").caused_by(error))?;
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let options = File::options().read(true).write(true).create_new(true).mode(0o600).open(&self.path);
                let file = options.map_err(|error| self.error("make", error))?;
                self.lock(&file, Instant::now())?;
                file
            }
        };
        let written = file.set_len(0).and_then(|()| file.write_all_at(&text, 0)).and_then(|()| file.sync_all());
        written.and_then(|()| self.flush_folder()).map_err(|error| self.error("write", error))?;
        self.file = Some(file);
        Ok(())
    }

    /// The locked file, for the program that formats.
    fn held(&self) -> Result<File> {
        let file = self.file.as_ref().ok_or_else(|| Error::internal("nothing says that the device was blank"))?;
        file.try_clone().map_err(|error| self.error("hold", error))
    }

    /// Has it name no device any more, durably, and takes it away.
    pub(super) fn remove(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        // One byte is written whole or not at all, and in its place, so that only its block is flushed.
        file.write_all_at(b" ", 0).and_then(|()| file.sync_data()).map_err(|error| self.error("strike out", error))?;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("remove", error)),
            _ => {
                self.file = None;
                Ok(())
            }
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
    source: &Brought,
    size: Bytes,
    fs_type: FsType,
    intent: &mut Intent,
    again: bool,
) -> Result<FileSystem> {
    let command = command(cx, fs_type, source.reads_zero, again)?.arg(&source.path).timeout(TIMEOUT);
    if !again {
        intent.write(source)?;
    }
    let command = command.holding(intent.held()?);
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
    use dunnage_driver_api::{DeviceSource, Generation, InstanceId, ReleaseRecord, VolumeKey};

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

    fn brought(identity: &str, holding: Holding) -> Brought {
        let (device, release) = (tempfile::tempfile().unwrap(), ReleaseRecord::new(&()).unwrap());
        let source = DeviceSource::new(device, "/dev/test".into(), Identity(identity.into()), release);
        Brought { source, holding }
    }

    fn volume() -> VolumeId {
        VolumeId {
            instance: InstanceId::random().unwrap(),
            key: VolumeKey::of_name("v"),
            generation: Generation::random().unwrap(),
        }
    }

    #[test]
    fn an_intent_is_only_for_the_device_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume();
        let settled = || Intent::settled(folder.path(), &volume, Instant::now());
        let (own, other) = (brought("a", Holding::OfNode), brought("b", Holding::OfNode));
        let says = |intent: &Intent, source: &Brought| intent.word(source).unwrap();
        let mut intent = settled().unwrap();
        assert_eq!(says(&intent, &own), Word::None);
        intent.write(&own).unwrap();
        assert_eq!((says(&intent, &own), says(&intent, &other)), (Word::Blank, Word::None));
        let error = settled().unwrap_err();
        assert!(error.to_string().contains("still being formatted"), "{error}");

        let (program, path) = (intent.held().unwrap(), intent.path.clone());
        drop(intent);
        settled().unwrap_err();
        drop(program);
        let mut left = settled().unwrap();
        assert_eq!(says(&left, &own), Word::Blank);
        left.write(&other).unwrap();
        assert_eq!((says(&left, &other), says(&left, &own)), (Word::Blank, Word::None));
        drop(left);

        // The power failed after it was removed, and its name is there again.
        let kept = folder.path().join("kept");
        fs::hard_link(&path, &kept).unwrap();
        let mut intent = settled().unwrap();
        intent.remove().unwrap();
        intent.remove().unwrap();
        assert!(!path.exists() && says(&intent, &other) == Word::None);
        fs::rename(&kept, &path).unwrap();
        assert_eq!(says(&settled().unwrap(), &other), Word::None);

        fs::write(&path, "{\"vers").unwrap();
        let mut intent = settled().unwrap();
        assert_eq!(says(&intent, &own), Word::None);
        intent.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn of_a_device_that_others_reach_an_intent_is_believed_for_its_attachment_alone() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume();
        let by = |word: &str| Holding::Attached { word: word.into(), read_only: false };
        let attached = |word: &str| brought("a", by(word));
        let written = |source: &Brought| {
            let mut intent = Intent::settled(folder.path(), &volume, Instant::now()).unwrap();
            intent.write(source).unwrap();
            intent
        };
        let intent = written(&attached("first"));
        assert_eq!(intent.word(&attached("first")).unwrap(), Word::Blank);
        assert_eq!(intent.word(&attached("second")).unwrap(), Word::Doubted);
        assert_eq!(intent.word(&brought("a", Holding::Shared)).unwrap(), Word::Doubted);
        assert_eq!(intent.word(&brought("b", by("first"))).unwrap(), Word::None);
        drop(intent);
        for source in [brought("a", Holding::Shared), brought("a", Holding::OfNode)] {
            let intent = written(&source);
            assert_eq!(intent.word(&attached("first")).unwrap(), Word::Doubted);
            assert_eq!(intent.word(&brought("a", Holding::Shared)).unwrap(), Word::Doubted);
        }
    }
}
