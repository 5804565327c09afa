//! The thread of a backend that has disks wiped, and has looked for the file systems of its volumes.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use dunnage_driver_api::{Bytes, Error, Result, Volume};
use rustix::fs::OFlags;

use crate::config::Wipe;
use crate::content::{self, Content};
use crate::deleting::{Known, refuse_content};
use crate::identity::DiskId;
use crate::kernel::Device;
use crate::mark::Mark;
use crate::rules;
use crate::store::Store;
use crate::wiping::{Stage, Wiping};
use crate::{ioctl, wipe};

/// How often it looks without being told: a disk may have come back.
const AGAIN: Duration = Duration::from_secs(60);
/// How often while there is a volume in use of which the file system is not known: what a power cut comes before stays
/// unknown.
const SOON: Duration = Duration::from_secs(2);
/// Tells the thread that there is work, or that the backend ends.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    bell: Condvar,
}

#[derive(Default)]
struct Rung {
    work: bool,
    stop: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).work = true;
        self.bell.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.bell.notify_all();
    }

    /// Waits for work, or so long; `false` at the end.
    fn wait(&self, at_most: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut Rung| !state.work && !state.stop;
        let waited = self.bell.wait_timeout_while(state, at_most, idle).unwrap_or_else(PoisonError::into_inner);
        let mut state = waited.0;
        state.work = false;
        !state.stop
    }
}

/// Starts it.
///
/// # Errors
/// Where the system gives no thread.
pub(crate) fn start(store: &Arc<Store>) -> Result<()> {
    let (bell, store) = (store.bell.clone(), Arc::downgrade(store));
    let run = move || {
        loop {
            let Some(open) = store.upgrade() else { return };
            open.begin_to_wipe(&store);
            let all_known = open.see_contents();
            drop(open);
            if !bell.wait(if all_known { AGAIN } else { SOON }) {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("wiper".into()).spawn(run);
    thread.map(drop).map_err(|error| Error::io("cannot start the thread that wipes disks", error))
}

impl Store {
    /// Has each disk that is to be wiped wiped by a thread of its own: a disk that hangs is in the way of no other.
    fn begin_to_wipe(&self, store: &Weak<Self>) {
        for wiping in self.wipings.all() {
            // A delete that was cut off is ended by the next delete; until then the volume is there.
            let is_volume = match self.records.get(&wiping.volume) {
                Ok(record) => record.is_some_and(|record| record.volume.generation == wiping.generation),
                Err(_) => true,
            };
            if is_volume || !self.taken().wiping.insert(wiping.disk.clone()) {
                continue;
            }
            let (store, disk) = (store.clone(), wiping.disk.clone());
            // Dropped by whatever ends the thread, and where there is none.
            let busy = Busy { store, disk };
            let work = move || {
                let done = run(&busy.store, &busy.disk);
                if let Some(open) = busy.store.upgrade() {
                    open.tell(&busy.disk, done);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("wipe".into()).spawn(work) {
                tracing::warn!(%error, "cannot start the thread that wipes a disk, will try again");
            }
        }
    }

    /// Tells how the wiping of a disk ended, once where it ends in the same way each time.
    fn tell(&self, disk: &DiskId, done: Result<Done>) {
        let mut taken = self.taken();
        taken.seen.remove(disk);
        match done {
            Ok(done) => {
                taken.said.remove(disk);
                match done {
                    Done::Wiped => tracing::info!(disk = disk.0, "a disk was wiped and is free"),
                    Done::Withdrawn => {
                        tracing::warn!(
                            disk = disk.0,
                            "a disk is not wiped: its file was removed from the folder wiping"
                        )
                    }
                }
            }
            Err(error) => {
                let error = error.report();
                if taken.said.insert(disk.clone(), error.clone()).is_none_or(|said| said != error) {
                    tracing::warn!(disk = disk.0, error, "a disk cannot be wiped yet, will try again");
                }
            }
        }
    }
}

/// That a thread of this process wipes a disk, until this is dropped.
struct Busy {
    store: Weak<Store>,
    disk: DiskId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(open) = self.store.upgrade() {
            open.taken().wiping.remove(&self.disk);
            open.freed.notify_all();
        }
    }
}

/// How the wiping of a disk ended.
enum Done {
    /// It is free.
    Wiped,
    /// It is not to be wiped any more.
    Withdrawn,
}

/// Wipes a disk to its end, unless the backend ends before.
fn run(store: &Weak<Store>, disk: &DiskId) -> Result<Done> {
    let ended = || Error::internal("the backend was closed: it goes on at the next start");
    let open = store.upgrade().ok_or_else(ended)?;
    let Some(mut wiping) = open.wipings.read_again(disk)? else { return Ok(Done::Withdrawn) };
    let device = open.kernel.find(disk)?.ok_or_else(|| {
        Error::precondition(
            "it is not on this node: it is wiped when it is back; if it is lost for good, remove its file from the folder \
             wiping",
        )
    })?;
    let failed = |error: std::io::Error| Error::io(format!("cannot wipe {}: see the kernel log", device.name), error);
    rules::refuse_held(&open.kernel, &device).map_err(Error::precondition)?;
    let _lock = open.kernel.lock(&device).map_err(failed)?;
    let (file, device) = open.kernel.open(disk, &device, OFlags::RDWR | OFlags::EXCL).map_err(failed)?;
    if device.size != wiping.size {
        return Err(Error::precondition(format!(
            "{} has {} bytes, and the volume that was deleted had {}: wipe it by hand, and remove its file from the folder \
             wiping",
            device.name, device.size, wiping.size
        )));
    }
    let mark = wiping.mark(open.root.instance());
    let is_marked = Mark::read(&file).map_err(failed)?.as_ref() == Some(&mark);
    let is_over = wiping.stage == Stage::Ended
        && !is_marked
        && content::look(&file, device.size).map_err(failed)? == Content::Blank;
    if is_over {
        return open.finish(file, &wiping);
    }
    if !is_marked {
        prove(&file, &device, &wiping)?;
        mark.write(&file).map_err(failed)?;
        (wiping.stage, wiping.done) = (Stage::Begun, 0);
        open.wipings.put(&wiping)?;
    }
    drop(open);
    let is_open = || store.strong_count() > 0;
    let note = |wiping: &Wiping| match store.upgrade() {
        Some(open) => open.wipings.put(wiping).map_err(std::io::Error::other),
        None => Ok(()),
    };
    wipe::all(&file, &mut wiping, wipe::PACE, is_open, note).map_err(failed)?;
    let open = store.upgrade().ok_or_else(ended)?;
    // Whatever comes now, that much need not be done again.
    open.wipings.put(&wiping)?;
    wipe::marks(&file, device.size).map_err(|error| failed(error.into()))?;
    file.sync_all().map_err(failed)?;
    if content::look(&file, device.size).map_err(failed)? != Content::Marked(mark) {
        return Err(Error::internal(format!("{} was zeroed and does not read as zero", device.name)));
    }
    if !device.partitions().map_err(failed)?.is_empty() {
        // Those that a workload made, and which the kernel has seen.
        ioctl::read_partitions(&file).map_err(|error| failed(error.into()))?;
    }
    wiping.stage = Stage::Ended;
    open.wipings.put(&wiping)?;
    Mark::erase(&file).map_err(failed)?;
    open.finish(file, &wiping)
}

impl Store {
    /// Has a disk free that was wiped.
    fn finish(&self, disk: File, wiping: &Wiping) -> Result<Done> {
        if wiping.wipe == Wipe::Zero {
            for left in self.left.all() {
                // A disk was wiped with all its partitions, a partition alone.
                if left.disk == wiping.disk || !wiping.disk.is_of_partition() && left.disk.overlaps(&wiping.disk) {
                    self.left.remove(&left.disk)?;
                }
            }
        } else {
            self.left.put(wiping)?;
        }
        // Nobody finds it free and open.
        drop(disk);
        self.wipings.remove(&wiping.disk)?;
        Ok(Done::Wiped)
    }
}

/// That a disk without our mark carries what the volume has written, or nothing. Once wiping had begun it would be there.
fn prove(file: &File, device: &Device, wiping: &Wiping) -> Result<()> {
    let known = match &wiping.content {
        Some(content) if wiping.stage == Stage::Named => Known::Of(Some(content)),
        _ => Known::Nothing,
    };
    let volume = Volume::new(wiping.volume.clone(), wiping.generation.clone(), Bytes::new(device.size));
    refuse_content(file, device.size, &volume, known)
        .map_err(|error| error.during("wipe a disk that was away, or has lost the mark that it is being wiped"))
}
