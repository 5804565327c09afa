//! The marker that makes an empty folder an instance of ours.
//!
//! `init` makes the folders, writes the marker under a name of its own, and links it to its real name at last: until
//! then there is nothing but empty folders and perhaps that file, which the next `init` accepts and replaces. Linking
//! fails where the name is taken, so that of two `init` at once one wins and both say the same. The marker is never
//! written again: a lock on it holds for as long as the instance lives.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{META, RECORDS, Root, TRASH, folder::Folder, holder};
use crate::driver::Init;
use crate::error::{Error, Result};
use crate::id::InstanceId;

const NAME: &str = "instance.json";
const TEMPORARY: &str = "instance.json.";
const VERSION: u32 = 1;
const LARGEST: u64 = 4096;
/// A lock that was just given up is held for a moment by a program that is being started (between fork and exec) and by
/// a thread that is ending.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Serialize, Deserialize)]
struct Marker {
    version: u32,
    driver: String,
    instance: InstanceId,
}

/// See [`Root::init`](super::Root::init).
pub(super) fn init(root: &Folder, driver: &str) -> Result<Init> {
    let path = root.path();
    if let Some(instance) = find(root, driver)? {
        return settle(root).map(|()| Init::Existing(instance));
    }
    if let Err(refusal) = refuse_foreign(root) {
        // Another `init` may have been faster between the two looks.
        let instance = find(root, driver)?.ok_or(refusal)?;
        return settle(root).map(|()| Init::Existing(instance));
    }
    let failed = |error| Error::io(format!("cannot mark {}", path.display()), error);
    let meta = root.folder_or_make(META, 0o700).map_err(failed)?;
    for name in [RECORDS, TRASH] {
        meta.folder_or_make(name, 0o700).map_err(failed)?;
    }
    let marker = Marker { version: VERSION, driver: driver.into(), instance: InstanceId::random()? };
    let text = serde_json::to_vec_pretty(&marker)
        .map_err(|error| Error::internal("cannot write the marker as JSON").caused_by(error))?;
    let temporary = format!("{TEMPORARY}{}", marker.instance);
    let linked = meta.write(&temporary, &text).and_then(|()| meta.link(&temporary, &meta, NAME));
    // Whoever was first, and cleared our file away before it was linked, was an `init` like this one.
    let Some(instance) = find(root, driver)? else {
        return Err(
            linked.map_or_else(failed, |()| Error::internal(format!("the marker of {} vanished", path.display())))
        );
    };
    settle(root)?;
    Ok(if instance == marker.instance { Init::Created(instance) } else { Init::Existing(instance) })
}

/// The instance in the marker of `root`, which must have one.
pub(super) fn found(root: &Folder, driver: &str) -> Result<InstanceId> {
    find(root, driver)?.ok_or_else(|| {
        Error::precondition(format!(
            "root {} has no marker of ours: if its disk is not mounted, mount it; if it is new, run `dunnage init`",
            root.path().display()
        ))
    })
}

/// The instance in the marker of `root`; `None` where there is no marker.
pub(super) fn find(root: &Folder, driver: &str) -> Result<Option<InstanceId>> {
    let mut text = Vec::new();
    let read = root.folder(META).and_then(|meta| meta.read(NAME, &mut text, LARGEST));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(root.failed("read the marker", name()))?,
    }
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let place = root.path().join(name());
    let broken = |error| {
        Error::precondition(format!("the marker {} is broken: restore it from a backup", place.display()))
            .caused_by(error)
    };
    let Version { version } = serde_json::from_slice(&text).map_err(broken)?;
    if version != VERSION {
        return Err(Error::precondition(format!(
            "the marker {} has version {version}, this release knows {VERSION}: use the release that made it, or a later one",
            place.display()
        )));
    }
    let marker: Marker = serde_json::from_slice(&text).map_err(broken)?;
    if marker.driver != driver {
        return Err(Error::precondition(format!(
            "{} is a root of the driver {:?}, not of {driver:?}: correct `driver` or `root`",
            root.path().display(),
            marker.driver
        )));
    }
    Ok(Some(marker.instance))
}

/// Reads the marker of a root that is open.
pub(super) fn read_again(meta: &Folder) -> Result<()> {
    meta.read(NAME, &mut Vec::new(), LARGEST).map_err(|error| {
        let place = meta.path().join(NAME);
        Error::io(
            format!(
                "cannot read the marker {} any more: see the kernel log; if the file system was mounted anew, restart \
                 the host, which has the old mount open",
                place.display()
            ),
            error,
        )
    })
}

/// Locks the marker for as long as the file is open, against every other process and a second backend in this one.
/// It is opened for writing, since NFS locks nothing else, and since that tells a read-only file system.
pub(super) fn lock(meta: &Folder) -> Result<File> {
    let file = meta.open(NAME, OFlags::RDWR | OFlags::NOFOLLOW, 0).map_err(|error| match error.raw_os_error() {
        Some(libc::EROFS) => Error::io(
            format!(
                "{} is on a read-only file system: remount it read-write (see the kernel log for why)",
                meta.path().display()
            ),
            error,
        ),
        _ => meta.failed("open", NAME)(error),
    })?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(PATIENCE / 20),
            Err(Errno::WOULDBLOCK) => {
                let who = match holder::node(meta) {
                    Some(node) => format!(" (by node {node}, as it says)"),
                    None => String::new(),
                };
                return Err(Error::precondition(format!(
                    "{} is served already{who}, by another process or another backend of this one: one root is one \
                     backend's",
                    meta.path().display()
                ))
                .retry(true));
            }
            Err(error) => return Err(meta.failed("lock", NAME)(error.into())),
        }
    }
}

/// Opens the root itself, with the remedy where it is not there.
pub(super) fn open_folder(path: &Path) -> Result<Folder> {
    Root::check_key(path).map_err(|error| Error::invalid(error.message))?;
    Folder::at(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::precondition(format!("root {} does not exist: create it, or mount its disk", path.display()))
        }
        io::ErrorKind::NotADirectory => Error::precondition(format!("root {} is not a folder", path.display())),
        _ => Error::io(format!("cannot open root {}", path.display()), error),
    })
}

fn name() -> String {
    format!("{META}/{NAME}")
}

/// Makes durable what an `init` before this one may have left in the cache, and removes what it wrote beside the marker.
fn settle(root: &Folder) -> Result<()> {
    let meta = root.folder(META).map_err(root.failed("open", META))?;
    // Where this fails it is in nobody's way.
    let _ = clear_temporaries(&meta);
    meta.sync().map_err(meta.failed("sync", ""))?;
    root.sync().map_err(root.failed("sync", ""))
}

/// Whether there is nothing but what a file system or a cut-off `init` leaves.
pub(super) fn refuse_foreign(root: &Folder) -> Result<()> {
    let failed = |error| Error::io(format!("cannot read {}", root.path().display()), error);
    let mut found = Vec::new();
    for entry in root.entries().map_err(failed)? {
        let (entry, _) = entry.map_err(failed)?;
        if entry == META {
            found.extend(foreign_in_meta(&root.folder(META).map_err(failed)?).map_err(failed)?);
        } else if entry != "lost+found" {
            found.push(entry.to_string_lossy().into_owned());
        }
        if found.len() > 3 {
            break;
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "root {} is not empty (it has {}) and has no marker of ours: use an empty folder; if it was a root before, is \
         its disk mounted?",
        root.path().display(),
        found.join(", ")
    )))
}

fn foreign_in_meta(meta: &Folder) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in meta.entries()? {
        let (entry, _) = entry?;
        let text = entry.to_string_lossy();
        let ours = match &*text {
            RECORDS | TRASH => meta.folder(&entry)?.is_empty()?,
            other => other.starts_with(TEMPORARY),
        };
        if !ours {
            found.push(format!("{META}/{text}"));
        }
    }
    Ok(found)
}

fn clear_temporaries(meta: &Folder) -> io::Result<()> {
    for entry in meta.entries()? {
        let (entry, _) = entry?;
        if entry.to_string_lossy().starts_with(TEMPORARY) {
            match meta.unlink(&entry) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
