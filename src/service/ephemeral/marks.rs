//! What this node must know to delete an ephemeral volume: `<state>/ephemeral/<digest of the handle>`.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, ErrorKind, Fingerprint, InstanceId, Result, TargetPath, VolumeKey};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// Far more than any mark has.
const LARGEST: u64 = 64 << 10;
/// How the name of a mark ends that is being written.
const HALF: &str = ".half";

/// What this node must know to delete an ephemeral volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    version: u32,
    pub(super) handle: String,
    pub(super) target_path: TargetPath,
    pub(super) instance: InstanceId,
    pub(super) key: VolumeKey,
    pub(super) fingerprint: Fingerprint,
    /// Whether the pod may have had it: then it may hold data, and only the pod's end deletes it.
    pub(super) published: bool,
}

impl Mark {
    /// The mark of a volume that is to be made.
    pub(super) fn new(
        handle: String,
        target_path: TargetPath,
        instance: InstanceId,
        key: VolumeKey,
        fingerprint: Fingerprint,
    ) -> Self {
        Self { version: VERSION, handle, target_path, instance, key, fingerprint, published: false }
    }
}

/// The marks of this node.
pub struct EphemeralMarks {
    folder: PathBuf,
}

impl EphemeralMarks {
    /// Opens the marks in `<state>/ephemeral`, of which this process is the only user, and removes what a write that was
    /// cut off left.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn open(state: &Path) -> Result<Self> {
        let marks = Self { folder: state.join("ephemeral") };
        let folder = marks.folder()?;
        let failed = |error| marks.failed("list", error);
        for entry in folder.entries().map_err(failed)? {
            let (name, _) = entry.map_err(failed)?;
            if name.as_encoded_bytes().ends_with(HALF.as_bytes()) {
                folder.unlink(&name).map_err(|error| marks.failed("remove", error))?;
            }
        }
        Ok(marks)
    }

    /// The mark of a volume that is to be made: written durably, or found where the same request wrote it before.
    ///
    /// # Errors
    /// AlreadyExists where another request has the handle: its volume would be nobody's if the mark were overwritten.
    pub(super) fn begin(&self, mark: &Mark) -> Result<Mark> {
        let known = match self.read(&mark.handle)? {
            Some(known) => Some(known),
            None => {
                self.put(mark, |folder, half, name| {
                    let linked = folder.link(half, folder, name);
                    folder.unlink(half)?;
                    match linked {
                        // Another call for this handle, which goes to another backend, came first.
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                        linked => linked,
                    }
                })?;
                self.read(&mark.handle)?
            }
        };
        match known {
            Some(known) if known == (Mark { published: known.published, ..mark.clone() }) => Ok(known),
            Some(known) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "ephemeral volume {:?} is, or was to be, published at {} with other attributes: unpublish it there \
                     first",
                    known.handle, known.target_path
                ),
            )),
            None => Err(Error::internal("the mark of the ephemeral volume went while it was written")),
        }
    }

    /// Remembers that the pod has the volume.
    pub(super) fn set_published(&self, mark: Mark) -> Result<()> {
        if mark.published {
            return Ok(());
        }
        self.put(&Mark { published: true, ..mark }, |folder, half, name| folder.rename(half, folder, name))
    }

    /// The mark, or `None` where this node made no such volume.
    pub(super) fn read(&self, handle: &str) -> Result<Option<Mark>> {
        let mut bytes = Vec::new();
        match self.folder()?.read(name(handle), &mut bytes, LARGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed("read", error))?,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // A later release may have other fields; its version is still the first thing to say.
        let broken = |error: serde_json::Error| self.failed("read", error.into());
        let Version { version } = serde_json::from_slice(&bytes).map_err(broken)?;
        if version != VERSION {
            return Err(Error::precondition(format!(
                "the mark of the ephemeral volume has version {version}, this release knows {VERSION}: run a later one"
            ))
            .with("folder", self.folder.display()));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    pub(super) fn remove(&self, mark: &Mark) -> Result<()> {
        let folder = self.folder()?;
        match folder.unlink(name(&mark.handle)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            unlinked => unlinked.and_then(|()| folder.sync()),
        }
        .map_err(|error| self.failed("remove", error))
    }

    /// Writes a mark beside its place and has it `placed`. Calls for one handle run at once only for two instances.
    fn put(&self, mark: &Mark, placed: impl FnOnce(&Folder, &str, &str) -> io::Result<()>) -> Result<()> {
        let (folder, name) = (self.folder()?, name(&mark.handle));
        let half = format!("{name}.{}{HALF}", mark.instance);
        let bytes = serde_json::to_vec(mark).map_err(|error| self.failed("write", error.into()))?;
        folder
            .write(&half, &bytes)
            .and_then(|()| placed(&folder, &half, &name))
            .and_then(|()| folder.sync())
            .map_err(|error| self.failed("write", error))
    }

    fn folder(&self) -> Result<Folder> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .and_then(|()| Folder::at(&self.folder))
            .map_err(|error| self.failed("open the folder of", error))
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} the mark of the ephemeral volume"), error)
            .with("folder", self.folder.display())
    }
}

fn name(handle: &str) -> String {
    Fingerprint::of(&[("handle".to_owned(), handle.to_owned())].into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(instance: char, target: &str) -> Mark {
        let instance = instance.to_string().repeat(26).parse().unwrap();
        let fingerprint = Fingerprint::of(&[].into());
        Mark::new("csi-1".into(), TargetPath::new(target).unwrap(), instance, VolumeKey::of_name("csi-1"), fingerprint)
    }

    #[test]
    fn a_mark_is_never_overwritten_by_another_request() {
        let state = tempfile::tempdir().unwrap();
        let marks = EphemeralMarks::open(state.path()).unwrap();
        let first = marks.begin(&mark('a', "/t")).unwrap();
        assert_eq!(marks.begin(&mark('a', "/t")).unwrap(), first);
        marks.set_published(first).unwrap();
        assert!(marks.begin(&mark('a', "/t")).unwrap().published);
        for other in [mark('b', "/t"), mark('a', "/u")] {
            let error = marks.begin(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(error.to_string().contains("/t"), "{error}");
        }
        let kept = marks.read("csi-1").unwrap().unwrap();
        assert!(kept.published && kept.instance == mark('a', "/t").instance);
        marks.remove(&kept).unwrap();
        marks.remove(&kept).unwrap();
        assert_eq!(marks.begin(&mark('b', "/u")).unwrap(), mark('b', "/u"));
    }

    #[test]
    fn of_two_requests_at_once_one_has_the_handle() {
        let state = tempfile::tempdir().unwrap();
        let marks = EphemeralMarks::open(state.path()).unwrap();
        for _ in 0..50 {
            let begin = |instance| marks.begin(&mark(instance, "/t"));
            let (a, b) = std::thread::scope(|scope| {
                let (a, b) = (scope.spawn(|| begin('a')), scope.spawn(|| begin('b')));
                (a.join().unwrap(), b.join().unwrap())
            });
            assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
            marks.remove(&a.or(b).unwrap()).unwrap();
        }
    }

    #[test]
    fn what_a_cut_off_write_left_is_gone_after_the_start_and_marks_stay() {
        let state = tempfile::tempdir().unwrap();
        let marks = EphemeralMarks::open(state.path()).unwrap();
        let kept = marks.begin(&mark('a', "/t")).unwrap();
        std::fs::write(state.path().join("ephemeral").join(format!("x{HALF}")), "{").unwrap();
        let marks = EphemeralMarks::open(state.path()).unwrap();
        assert_eq!(marks.read("csi-1").unwrap(), Some(kept));
        assert_eq!(std::fs::read_dir(state.path().join("ephemeral")).unwrap().count(), 1);
    }
}
