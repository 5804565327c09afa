//! Holding volumes still: a freeze that nobody can be left in.
//!
//! - Only a file system that holds one volume and nothing else is frozen: one on the device of a staged volume.
//! - Before it is frozen, a file of this boot says so, and a child of this process has it open ([`guard`]). The child is
//!   told of each file system once it is frozen, and thaws it when the time is up, or when this process is gone; also one
//!   that took longer to freeze than it was to be frozen. While it lives it has the file locked. The next process to open
//!   the engine waits for that lock and thaws what is frozen still.
//! - A file system that is frozen already is somebody else's: it is left alone, and the volume is not held.
//! - Only what was frozen all the time counts: whoever lets go is told where it was not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, Generation, Held, HoldStill, InUse, Result, VolumeId};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::{Place, Seen};
use super::record::{self, Record};
use super::root::Root;
use super::uses::published;
use super::{Engine, sys};
use guard::Guard;
pub(crate) use guard::{Guards, watch};

mod guard;

const VERSION: u32 = 1;
/// How the name of a file ends that says what is frozen.
const FROZEN: &str = "frozen";
/// How long a guard of a process that is gone may take to thaw what it guards.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a file system that is mounted nowhere any more may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// What is about to be frozen.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    version: u32,
    mounts: Vec<Frozen>,
}

/// A mounted file system, and where it can be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Frozen {
    path: PathBuf,
    root: Root,
}

impl Frozen {
    /// Opens the top of the file system, where it is still mounted.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(place) = Place::find(&self.path)? else { return Ok(None) };
        if place.look()? != Seen::Mount(self.root) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top =
            rustix::fs::openat(place.open().map_err(|error| self.error("open", error))?, ".", flags, Mode::empty());
        top.map(Some).map_err(|error| self.error("open", error.into()))
    }

    fn error(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} the file system at {}", self.path.display()), error)
    }
}

/// The volumes that are held now: a second one to hold a volume waits for the first.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: Mutex<BTreeSet<VolumeId>>,
    changed: Condvar,
}

impl Holding {
    /// Waits until nobody holds any of these.
    fn take(self: &Arc<Self>, volumes: &[VolumeId], within: Duration) -> Result<Turn> {
        let until = Instant::now() + within;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(volume) = volumes.iter().find(|volume| held.contains(volume)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::precondition("the volume is being copied by another call: repeat this one later")
                    .with("volume", volume)
                    .retry(true));
            }
            held = self.changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        held.extend(volumes.iter().cloned());
        Ok(Turn { holding: self.clone(), volumes: volumes.to_vec() })
    }
}

/// The right to hold these volumes.
struct Turn {
    holding: Arc<Holding>,
    volumes: Vec<VolumeId>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = self.holding.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|volume| !self.volumes.contains(volume));
        self.holding.changed.notify_all();
    }
}

/// Volumes that are held, until this is dropped.
struct Hold {
    uses: Vec<InUse>,
    freeze: Option<Freeze>,
    _turn: Turn,
}

impl Held for Hold {
    fn uses(&self) -> &[InUse] {
        &self.uses
    }

    fn let_go(mut self: Box<Self>) -> Result<()> {
        self.freeze.take().map_or(Ok(()), Freeze::end)
    }
}

/// File systems that are frozen, until this is dropped.
struct Freeze {
    intent: PathBuf,
    guard: Option<Guard>,
    frozen: Vec<(Frozen, OwnedFd)>,
    within: Duration,
}

impl Freeze {
    /// Thaws them, and says whether they were frozen until now.
    fn end(mut self) -> Result<()> {
        self.thaw()
    }

    /// The guard goes last: at no moment is anything frozen that nobody would thaw.
    fn thaw(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (mount, top) in self.frozen.drain(..) {
            match sys::thaw(&top) {
                Ok(()) => {}
                // It was not frozen any more.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    result = result.and(Err(Error::precondition(format!(
                        "the file system at {} was thawed while it was copied, by its guard after {} s or by somebody else: \
                         repeat the call",
                        mount.path.display(),
                        self.within.as_secs()
                    ))
                    .retry(true)));
                }
                Err(error) => result = result.and(Err(mount.error("thaw", error))),
            }
        }
        if let Some(guard) = self.guard.take() {
            result = result.and(match guard.dismiss() {
                Ok(true) => Ok(()),
                Ok(false) => {
                    Err(Error::precondition("the copy took longer than a volume may be held: repeat the call")
                        .retry(true))
                }
                Err(error) => Err(Error::io("cannot end the guard of a frozen file system", error)),
            });
        }
        // A file that stays says nothing any more.
        let _ = strike_out(&self.intent).and_then(|()| fs::remove_file(&self.intent));
        result
    }
}

/// Takes the words out of a file that says what is frozen.
fn strike_out(intent: &Path) -> io::Result<()> {
    File::options().write(true).open(intent)?.set_len(0)
}

impl Drop for Freeze {
    fn drop(&mut self) {
        if let Err(error) = self.thaw() {
            tracing::warn!(error = error.report(), "a volume was not held until the end of a copy that failed");
        }
    }
}

/// What a volume's record says of how it is held.
enum Way {
    Freeze(Frozen, OwnedFd),
    Not(InUse),
}

impl Engine {
    fn way(&self, record: &Record) -> Result<Way> {
        let targets = published(record)?;
        let device = record.stage.as_ref().and_then(|stage| Some((stage, stage.device.as_ref()?)));
        if let Some((stage, device)) = device
            && let Some(mounted) = &device.filesystem
        {
            let of_target = targets.iter().map(|(path, _)| path.as_path());
            for path in std::iter::once(stage.path.as_path()).chain(of_target) {
                let mount = Frozen { path: path.into(), root: mounted.root };
                if let Some(top) = mount.open()? {
                    return Ok(Way::Freeze(mount, top));
                }
            }
            // Whoever mounted it elsewhere writes to it, and nobody was told where: it cannot be held.
            device.number.wait_until_free(&device.path, Instant::now() + ENDING)?;
            return Ok(Way::Not(InUse::No));
        }
        let raw = device.is_some_and(|(stage, _)| stage.asked.block);
        Ok(Way::Not(if raw || !targets.is_empty() { InUse::Writable } else { InUse::No }))
    }

    /// Holds these volumes still, as [`HoldStill::hold`] says.
    ///
    /// # Errors
    /// As [`HoldStill::hold`].
    fn hold(&self, volumes: &[VolumeId], within: Duration) -> Result<Hold> {
        let turn = self.holding.take(volumes, within)?;
        let (mut uses, mut mounts) = (Vec::new(), Vec::new());
        for volume in volumes {
            let way = self.records.load(volume).and_then(|record| self.way(&record));
            match way.map_err(|error| error.with("volume", volume))? {
                Way::Freeze(mount, top) => {
                    uses.push(InUse::Frozen);
                    mounts.push((mount, top));
                }
                Way::Not(used) => uses.push(used),
            }
        }
        let freeze = if mounts.is_empty() { None } else { Some(self.freeze(mounts, within)?) };
        Ok(Hold { uses, freeze, _turn: turn })
    }

    fn freeze(&self, mounts: Vec<(Frozen, OwnedFd)>, within: Duration) -> Result<Freeze> {
        let intent = self.records.folder().join(format!("{}.{FROZEN}", Generation::random()?));
        let failed = |error| Error::io(format!("cannot write {}", intent.display()), error);
        let said = Intent { version: VERSION, mounts: mounts.iter().map(|(mount, _)| mount.clone()).collect() };
        let text = serde_json::to_vec(&said).map_err(|error| failed(error.into()))?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&intent).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        let tops: Vec<_> = mounts.iter().map(|(_, top)| top).collect();
        let guard = self.guards.start(&intent, &tops, within);
        let mut freeze = Freeze { intent, guard: None, frozen: Vec::new(), within };
        let guard = guard.map_err(|error| Error::io("cannot start the guard of a frozen file system", error))?;
        freeze.guard = Some(guard);
        for (mount, top) in mounts {
            match sys::freeze(&top) {
                Ok(()) => {
                    freeze.frozen.push((mount, top));
                    let told = freeze.guard.as_mut().map_or(Ok(()), Guard::tell_frozen);
                    // Dropped, it is thawed by whoever is left to do it.
                    told.map_err(|error| Error::io("the guard of a frozen file system has ended", error).retry(true))?;
                }
                Err(error) => {
                    let refused = refusal(&mount, error);
                    // What was frozen is thawed; this one is not ours to thaw.
                    let _ = freeze.thaw();
                    return Err(refused);
                }
            }
        }
        Ok(freeze)
    }

    /// Thaws what a process that is gone left frozen. Where that does not succeed it is logged, and its file stays for the
    /// next start: one volume must not keep all others from being served.
    ///
    /// # Errors
    /// Where the folder of this boot cannot be read.
    pub(super) fn thaw_left(&self) -> Result<()> {
        let folder = self.records.folder();
        let failed =
            |error: io::Error| Error::io(format!("cannot look for frozen file systems in {}", folder.display()), error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == FROZEN)
                && let Err(error) = thaw_left(&path)
            {
                tracing::error!(file = %path.display(), error = error.report(), "a file system may still be frozen");
            }
        }
        Ok(())
    }
}

fn thaw_left(path: &Path) -> Result<()> {
    let failed = |error| Error::io("cannot read what is frozen", error);
    let file = File::open(path).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK || Instant::now() >= until {
            return Err(Error::io("the guard of a frozen file system does not end", error));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = fs::read(path).map_err(failed)?;
    if record::is_later(&text, VERSION) {
        return Err(Error::precondition("a later release wrote it: run that one, or thaw what it names"));
    }
    // One that is empty was struck out by its guard; one that was cut short was never followed by a freeze.
    let intent = serde_json::from_slice::<Intent>(&text).unwrap_or(Intent { version: VERSION, mounts: Vec::new() });
    for mount in &intent.mounts {
        let Some(top) = mount.open()? else { continue };
        match sys::thaw(&top) {
            Ok(()) => tracing::warn!(path = %mount.path.display(), "thawed a file system that a host left frozen"),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(mount.error("thaw", error)),
        }
    }
    strike_out(path).and_then(|()| fs::remove_file(path)).map_err(failed)
}

fn refusal(mount: &Frozen, error: io::Error) -> Error {
    let path = mount.path.display();
    match error.raw_os_error() {
        Some(libc::EBUSY) => Error::precondition(format!(
            "the file system at {path} is frozen already, by somebody else: thaw it (fsfreeze --unfreeze {path}) if nobody \
             needs that"
        ))
        .retry(true),
        Some(libc::EOPNOTSUPP) => Error::precondition(format!("the file system at {path} cannot be frozen")),
        _ => mount.error("freeze", error),
    }
}

/// The engine as what drivers ask to hold volumes still.
pub struct Still(pub Arc<Engine>);

impl HoldStill for Still {
    fn hold(&self, volumes: &[VolumeId], within: Duration) -> Result<Box<dyn Held>> {
        Ok(Box::new(self.0.hold(volumes, within)?))
    }
}
