//! What goes wrong, in the words of `docs/matrix.md`, and the notes that this page is made from.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What goes wrong, or is asked wrongly. `cargo xtask matrix` reads names, order and sentences from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A request lacks what it must have, or has what it cannot have.
    BadRequest,
    /// There is nothing of that id, or it is another store's.
    UnknownId,
    /// The same name or id again, with other arguments.
    OtherArguments,
    /// More is asked for than there is room.
    NoRoom,
    /// Several calls for the same thing at once.
    AtOnce,
    /// The client has hung up, or its deadline is over.
    ClientGone,
    /// Two nodes or hosts want what only one may have.
    TwoAtOnce,
    /// Something else is where a volume is to be mounted, or it was mounted and is not any more.
    ForeignTarget,
    /// A program still uses the volume.
    InUse,
    /// The host is killed (SIGKILL) within a call or after it.
    Killed,
    /// The host is told to end (SIGTERM) within a call.
    Terminated,
    /// The node was started anew: its mounts and devices are gone, its records are not.
    Rebooted,
    /// The power of the machine that has the storage was cut within a call.
    PowerCut,
    /// A program that the host runs is missing, fails or hangs.
    ProgramFails,
    /// The folder of the host's own records is full or read-only.
    StateUnwritable,
    /// The store is not marked as ours, is another's or of another kind.
    ForeignStore,
    /// The store is not there.
    StoreGone,
    /// The store can only be read.
    ReadOnlyStore,
    /// The disk of the store is full.
    DiskFull,
    /// The thin pool has no room for data.
    PoolDataFull,
    /// The thin pool has no room for metadata.
    PoolMetadataFull,
    /// A device or file cannot be read.
    ReadErrors,
    /// A device or file cannot be written.
    WriteErrors,
    /// One of the disks is missing.
    DiskMissing,
    /// The store does not answer: each call to it hangs.
    SilentStore,
    /// A record or mark of a volume was torn, lost or damaged.
    DamagedRecord,
    /// A record was written by a later version.
    LaterRecord,
    /// Somebody else's data is on the device.
    ForeignData,
    /// The file system of the volume finds itself damaged.
    DamagedFileSystem,
    /// Somebody has frozen the file system.
    Frozen,
    /// The server is not there when it is needed.
    NoServer,
    /// The server goes while a call asks it.
    ServerGoesWithin,
    /// The server is gone for seconds while volumes of it are in use.
    ServerGoneForSeconds,
    /// The server is gone for good while volumes of it are in use.
    ServerGoneForGood,
    /// The network is cut while a volume is written to.
    CutInWrite,
    /// Another target answers at the address.
    TargetReplaced,
    /// The LUN, namespace or handle is another volume's now.
    HandleReused,
    /// What the server knew the volume by is not valid any more.
    StaleHandle,
    /// The server does not let this node in any more, or not yet.
    AccessWithdrawn,
    /// The secret is wrong or missing.
    WrongSecret,
}

/// Where to note, as `cargo xtask` says.
const FILE: &str = "DUNNAGE_COVERED";

/// Notes that the running test makes this call while something is wrong: a cell of the page, if the test passes. The calls
/// of a [`Client`](crate::Client) that is [`under`](crate::Client::under) a fault are noted by themselves.
///
/// # Panics
/// The notes cannot be written.
pub fn covers(driver: &str, rpc: &str, fault: Fault) {
    note(&test(), driver, rpc, fault);
}

/// The name of the running test, where this is its own thread.
pub(crate) fn test() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

#[allow(clippy::expect_used, reason = "a test that cannot be noted must not seem to have been")]
pub(crate) fn note(test: &str, driver: &str, rpc: &str, fault: Fault) {
    static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = format!("{} {test} {driver} {rpc} {fault:?}\n", binary());
    if NOTED.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("cannot note what a test covers");
    }
}

/// What Cargo calls the binary of the running tests, without its hash.
fn binary() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or(Path::new("?").as_os_str()).to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
}
