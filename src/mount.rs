//! The node engine: what happens to a source between stage and unstage. The only place that mounts.
//!
//! A driver brings a device or a directory; the engine looks at it, makes and repairs its file system, mounts it, shows
//! it where the orchestrator wants it, grows it, measures it and takes it all away again. Rules that hold everywhere:
//!
//! - What the kernel shows is the truth; records say only what was meant to be. Each is written before the mount it
//!   describes, so that a process killed at any point is found by the next call.
//! - No table of mounts is read per call: a place is looked at alone, and compared by device and inode.
//! - A mount has its attributes, and has left its source's peer group, before it is put in its place.
//! - What is not known to be ours is left alone, with an error that names it.
//!
//! Calls for one volume never run at once; calls for different volumes do. Every call may block.

mod bind;
mod check;
mod device;
mod directory;
mod filesystem;
mod format;
mod grow;
mod health;
mod hold;
mod holding;
mod kernel;
mod namespace;
mod options;
mod place;
mod probe;
mod publish;
mod record;
mod request;
mod root;
mod served;
mod signature;
mod stage;
mod stats;
mod sys;
#[cfg(test)]
mod tests;
mod unpublish;
mod unstage;
mod uses;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{Questions, Result, Tool, VolumeId, boot_id};

pub use hold::Still;
pub(crate) use hold::{Guards, watch as watch_frozen};
pub(crate) use kernel::check as check_kernel;
pub use namespace::Audience;
pub(crate) use namespace::is_of_host;
pub use request::{NodeHalf, PublishVolume, Release, StageVolume};
pub(crate) use served::{Creators, OfDrivers, create as create_mounted};
pub(crate) use stats::of_its_own;
pub use stats::{Unit, Usage};
pub use uses::Uses;

/// Programs that the engine runs; `check` looks for them.
pub const TOOLS: &[Tool] = &[format::MKFS_EXT4, check::E2FSCK, grow::RESIZE2FS, format::MKFS_XFS, format::MKFS_BTRFS];

/// The servers of file systems that are mounted, by the numbers of their devices.
type Servers = Questions<(u32, u32)>;

/// How long a server may take to answer: statistics and health are answered within 2 seconds.
const ANSWER: Duration = Duration::from_millis(1500);

/// How the engine works.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Who must see what is mounted.
    pub audience: Audience,
}

/// The node engine of this process, for all its backends.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    records: record::Records,
    namespace: namespace::Namespace,
    holding: Arc<hold::Holding>,
    guards: Guards,
    creators: Creators,
    questions: Arc<Servers>,
}

impl Engine {
    /// Opens the engine with its records in `<state>/node`, of which it is the only user.
    ///
    /// # Errors
    /// FailedPrecondition on a kernel before Linux 5.14; otherwise where the folder cannot be used.
    pub fn open(state: &Path, options: EngineOptions) -> Result<Self> {
        kernel::check()?;
        let folder = state.join("node");
        let records = record::Records::new(&folder, &boot_id()?);
        records.prepare(&folder)?;
        let namespace = namespace::Namespace::new(options.audience);
        let engine = Self {
            records,
            folder,
            namespace,
            holding: Arc::default(),
            guards: Guards::own(),
            creators: Creators::own(),
            questions: Arc::default(),
        };
        engine.thaw_left()?;
        Ok(engine)
    }

    /// Every volume that is staged or published on this node, by the names of its records: nothing that could hang is
    /// looked at.
    ///
    /// # Errors
    /// Where the records cannot be listed.
    pub fn recorded(&self) -> Result<Vec<VolumeId>> {
        self.records.volumes()
    }

    /// Every volume that is used on this node, by the records of the engine that has `<state>/node`; none where there
    /// never was one. Changes nothing, and may be called beside that engine.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn uses_in(state: &Path) -> Result<Vec<Uses>> {
        let records = record::Records::new(&state.join("node"), &boot_id()?);
        records.all()?.iter().map(uses::uses_of).collect()
    }
}
