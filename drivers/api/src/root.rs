//! A store that is a folder: its marker, its records, its trash.
//!
//! ```text
//! <root>/.dunnage/instance.json   the marker: whose root this is; locked while it is served
//! <root>/.dunnage/volumes/<key>   a record for each volume
//! <root>/.dunnage/snapshots/<key> a record for each snapshot, where the driver takes some
//! <root>/.dunnage/groups/<key>    a record for each group of snapshots, the same
//! <root>/.dunnage/jobs/<kind>.<key> a record for each copy that is being made in the background
//! <root>/.dunnage/holder.json     which machine serves it, where several can
//! <root>/.dunnage/trash/          what is removed and not yet gone
//! <root>/...                      the volumes' data, as the driver lays it out
//! ```
//!
//! A volume is made data first, record last, and removed data first (a rename into the trash), record last; each step
//! is durable before the next. So at a power cut after any step there is
//! - data without a record: the remains of a create that was cut off, still empty. The next create finishes it. Data
//!   that is *not* empty and has no record is never such remains, and never removed: somebody lost a record;
//! - a record without data: a delete that was cut off. The next delete finishes it; nothing else may use it;
//! - both, or neither: the volume exists, or does not.

mod copies;
mod data;
mod folder;
mod groups;
mod holder;
mod index;
mod jobs;
mod kept;
mod marker;
mod reaper;
mod record;
mod records;
mod remains;
mod scan;
mod snapshots;
mod sorted;
mod syncs;
mod trash;
mod tree;
mod view;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use copies::{FolderCopies, FolderDriver, Folders};
pub use folder::{Folder, Sizes};
pub use groups::{GroupRecord, GroupRecords};
pub use holder::Tenure;
pub use jobs::{Attempt, Begun, Job, Jobs, Target, Work};
pub use record::Record;
pub use records::{Records, Reservation};
pub use remains::{Making, sweep};
pub use snapshots::{SnapshotRecord, SnapshotRecords};
pub use trash::Trash;
pub use tree::{Copied, TreeCopy};
pub use view::RootView;

use crate::driver::Init;
use crate::error::{Error, ErrorKind, Result};
use crate::finding::Finding;
use crate::health::{HealthFinding, store_findings};
use crate::id::{Generation, InstanceId};
use crate::key::KeyError;

const META: &str = ".dunnage";
const RECORDS: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const GROUPS: &str = "groups";
const JOBS: &str = "jobs";
const TRASH: &str = "trash";

/// Held by everything that changes the root, so that the next one to open it finds nobody at work.
type Lock = Arc<File>;

/// An opened root, proven to be ours by its marker and locked against everybody else.
pub struct Root {
    folder: Folder,
    meta: Folder,
    instance: InstanceId,
    trash: Trash,
    lock: Lock,
}

impl Root {
    /// Makes the empty folder `path` a root of `driver`, durably; says so where it is one already. `lost+found` and
    /// what a cut-off attempt left do not count.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition), and nothing is changed, where the folder is
    /// missing, has anything in it that is not ours, or is a root of another driver or of a later release.
    pub fn init(path: &Path, driver: &str) -> Result<Init> {
        Self::init_in(marker::open_folder(path)?, driver)
    }

    /// The same for a folder that is open, as one of a file system that is mounted nowhere.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn init_in(folder: Folder, driver: &str) -> Result<Init> {
        marker::init(&folder, driver)
    }

    /// Whether `path` can be a root on any node, for [`Driver::check_keys`](crate::Driver::check_keys) of a driver whose
    /// key is `root`.
    ///
    /// # Errors
    /// Where it is not absolute.
    pub fn check_key(path: &Path) -> Result<(), KeyError> {
        if path.is_absolute() {
            return Ok(());
        }
        let message = format!("root {path:?} is not an absolute path: begin it with /");
        Err(KeyError { pointer: "/root".into(), message })
    }

    /// Opens the root `path` of `driver` and begins to empty its trash.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) with the remedy where the folder is missing, has
    /// no marker or another's, is on a read-only file system, or is served already.
    pub fn open(path: &Path, driver: &str) -> Result<Self> {
        Self::open_in(marker::open_folder(path)?, driver)
    }

    /// The same for a folder that is open, as one of a file system that is mounted nowhere.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(folder: Folder, driver: &str) -> Result<Self> {
        let instance = marker::found(&folder, driver)?;
        let meta = folder.folder(META).map_err(folder.failed("open", META))?;
        let lock = Arc::new(marker::lock(&meta)?);
        let trash = meta.folder_or_make(TRASH, 0o700).map_err(meta.failed("open", TRASH))?;
        let trash = Trash::new(trash, lock.clone())?;
        Ok(Self { folder, meta, instance, trash, lock })
    }

    /// The records of its volumes, with the driver's own part `E`: once for each opened root.
    ///
    /// # Errors
    /// Where their folder is missing (it was there when the marker was written) or cannot be opened.
    pub fn records<E: Serialize + DeserializeOwned>(&self) -> Result<Records<E>> {
        let folder = self.meta.folder(RECORDS).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::precondition(format!(
                "{} is missing: the records of the volumes were removed; restore them from a backup",
                self.meta.path().join(RECORDS).display()
            )),
            _ => self.meta.failed("open", RECORDS)(error),
        })?;
        Records::new(folder, self.lock.clone())
    }

    /// The records of its snapshots, with the driver's own part `E`: once for each opened root. The folder is made where
    /// the root is older than its driver's snapshots.
    ///
    /// # Errors
    /// Where the folder cannot be opened.
    pub fn snapshots<E: Serialize + DeserializeOwned>(&self) -> Result<SnapshotRecords<E>> {
        let folder = self.meta.folder_or_make(SNAPSHOTS, 0o700).map_err(self.meta.failed("open", SNAPSHOTS))?;
        SnapshotRecords::new(folder, self.lock.clone())
    }

    /// The records of its groups of snapshots: once for each opened root. The folder is made where the root is older than
    /// its driver's groups.
    ///
    /// # Errors
    /// Where the folder cannot be opened.
    pub fn groups(&self) -> Result<GroupRecords> {
        let folder = self.meta.folder_or_make(GROUPS, 0o700).map_err(self.meta.failed("open", GROUPS))?;
        GroupRecords::new(folder, self.lock.clone())
    }

    /// The copies that are being made in the background, with the driver's own part `E`: once for each opened root. The
    /// folder is made where the root is older than its driver's copies. Of the `threads` that the backend has
    /// ([`Opening::threads`](crate::Opening::threads)), no more than a quarter wait for copies at once.
    ///
    /// # Errors
    /// Where the folder cannot be opened or read.
    pub fn jobs<E>(&self, threads: usize) -> Result<Jobs<E>>
    where
        E: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let folder = self.meta.folder_or_make(JOBS, 0o700).map_err(self.meta.failed("open", JOBS))?;
        Jobs::new(folder, self.folder.path(), self.lock.clone(), threads)
    }

    /// Which instance it is.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// The root itself, for the driver's data.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where removed things go.
    pub fn trash(&self) -> &Trash {
        &self.trash
    }

    /// How large its file system is and what is free.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn sizes(&self) -> Result<Sizes> {
        self.folder.sizes().map_err(self.folder.failed("read the sizes of", ""))
    }

    /// Whether the store answers and takes writes: reads the marker anew, and has the file system flush a folder, which
    /// one that has shut itself down refuses.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn probe(&self) -> Result<()> {
        marker::read_again(&self.meta)?;
        if self.sizes()?.read_only {
            return Err(Error::precondition(format!(
                "{} is on a read-only file system: see the kernel log for the reason, then remount it read-write",
                self.folder.path().display()
            )));
        }
        self.meta.sync().map_err(self.meta.failed("sync", ""))
    }

    /// What its file system has noted of its own damage and of its devices: a finding of each of its volumes.
    pub fn health(&self) -> Vec<HealthFinding> {
        HealthFinding::of_store(&self.folder, self.folder.path())
    }

    /// The same finding, of a driver that promises the room of the whole file system of the root `path` to its volumes:
    /// `check` then tells where another backend promises the same room.
    pub fn promises_room(path: &Path, finding: Finding) -> Finding {
        let Ok(stat) = rustix::fs::stat(path) else { return finding };
        let clash = Finding::warning(
            format!("the room of the file system of root {} is promised more than once", path.display()),
            "give each root a file system of its own: volumes run out of room before they are full",
        );
        finding.claiming(format!("room {}", stat.st_dev), clash)
    }

    /// What `check` says of the root `path` of `driver`. Changes nothing, and may be called while it is served.
    pub fn check(path: &Path, driver: &str) -> Vec<Finding> {
        match marker::open_folder(path) {
            Ok(folder) => Self::check_in(&folder, driver),
            Err(error) => {
                vec![Finding::error(error.report(), remedy(&error, "see to the key `root`, or mount its disk"))]
            }
        }
    }

    /// The same of a folder that is open.
    pub fn check_in(folder: &Folder, driver: &str) -> Vec<Finding> {
        let path = folder.path();
        let marked = match marker::find(folder, driver) {
            Ok(Some(instance)) => claims(folder, &instance),
            Ok(None) => unmarked(folder),
            Err(error) => Finding::error(error.report(), remedy(&error, "see to the key `root`, or to the marker")),
        };
        let sizes = match folder.sizes() {
            Ok(sizes) if sizes.read_only => Finding::error(
                format!("root {} is on a read-only file system", path.display()),
                "see the kernel log for the reason, then remount it read-write",
            ),
            Ok(sizes) => {
                Finding::ok(format!("root {} has {} free of {}", path.display(), sizes.available, sizes.total))
            }
            Err(error) => Finding::error(format!("root {}: {error}", path.display()), "see the kernel log"),
        };
        [marked, sizes].into_iter().chain(store_findings(&folder, path)).collect()
    }
}

/// What else than `otherwise` an error asks for.
fn remedy(error: &Error, otherwise: &'static str) -> &'static str {
    if error.kind() == ErrorKind::PermissionDenied { "run this as root" } else { otherwise }
}

/// That there is no marker, and whether one can be made.
fn unmarked(root: &Folder) -> Finding {
    let shown = root.path().display();
    match marker::refuse_foreign(root) {
        Ok(()) => Finding::error(
            format!("root {shown} is empty and has no marker"),
            "if its disk is not mounted, mount it; if it is new, run `dunnage init`",
        ),
        Err(error) if error.kind() == ErrorKind::FailedPrecondition => {
            Finding::error(error.report(), "name an empty folder in `root`; `dunnage init` marks no other")
        }
        Err(error) => Finding::error(error.report(), remedy(&error, "see the kernel log")),
    }
}

/// That the root is this instance, which is one backend's alone.
fn claims(root: &Folder, instance: &InstanceId) -> Finding {
    let shown = root.path().display();
    let finding = Finding::ok(format!("root {shown} is instance {instance}"));
    let copied = Finding::error(
        format!("instance {instance} has more than one root: one was copied with its marker"),
        "serve one of the copies alone: by their ids its volumes cannot be told from the other's",
    );
    let finding = finding.claiming(format!("instance {instance}"), copied);
    let Ok(stat) = rustix::fs::fstat(root) else { return finding };
    let shared =
        Finding::error(format!("root {shown} has more than one backend"), "give each backend a root of its own");
    finding.claiming(format!("root {} {}", stat.st_dev, stat.st_ino), shared)
}

/// Text that no other process of ours has: 64 random bits.
fn nonce() -> Result<String> {
    Generation::random().map(|random| random.to_string())
}

#[cfg(test)]
mod tests;
