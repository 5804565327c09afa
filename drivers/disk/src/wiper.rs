//! The thread of a backend that has disks wiped, and sees which file systems its volumes have.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Error, Result, Volume};
use rustix::fs::OFlags;

use crate::config::Wipe;
use crate::content::{self, Content};
use crate::kernel::{Device, DiskId};
use crate::store::{Extra, Known, Store, refuse_content};
use crate::wiping::Wiping;
use crate::{ioctl, wipe};

/// How often it looks without being told: a disk may have come back.
const AGAIN: Duration = Duration::from_secs(60);
/// How much is wiped until it is noted how far that is: so much is done twice after a kill.
const NOTED: u64 = 16 << 30;

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

    /// Waits for work; `false` at the end.
    fn wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut Rung| !state.work && !state.stop;
        let waited = self.bell.wait_timeout_while(state, AGAIN, idle).unwrap_or_else(PoisonError::into_inner);
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
            open.see_contents();
            drop(open);
            if !bell.wait() {
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
            let work = move || {
                let done = run(&store, &disk);
                if let Some(open) = store.upgrade() {
                    open.tell(&disk, done);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("wipe".into()).spawn(work) {
                self.taken().wiping.remove(&wiping.disk);
                tracing::warn!(%error, "cannot start the thread that wipes a disk, will try again");
            }
        }
    }

    /// Tells how the wiping of a disk ended, once where it ends in the same way each time.
    fn tell(&self, disk: &DiskId, done: Result<()>) {
        let mut taken = self.taken();
        taken.wiping.remove(disk);
        taken.seen.remove(disk);
        match done {
            Ok(()) => {
                taken.said.remove(disk);
                tracing::info!(disk = disk.0, "a disk was wiped and is free");
            }
            Err(error) => {
                let error = error.report();
                if taken.said.insert(disk.clone(), error.clone()).is_none_or(|said| said != error) {
                    tracing::warn!(disk = disk.0, error, "a disk cannot be wiped yet, will try again");
                }
            }
        }
        drop(taken);
        self.freed.notify_all();
    }

    /// Notes the file system of each volume of which it is not known.
    fn see_contents(&self) {
        let mut unknown = Vec::new();
        let each = self.records.each(|record| {
            if record.extra.used && record.extra.mounted && record.extra.content.is_none() {
                unknown.push(record);
            }
        });
        let seen = each.and_then(|()| unknown.iter().try_for_each(|record| self.see_content(record)));
        if let Err(error) = seen {
            tracing::debug!(error = error.report(), "the file system of a volume is not known yet");
        }
    }

    fn see_content(&self, record: &Record<Extra>) -> Result<()> {
        let device = self.device(record)?;
        let failed = |error| Error::io("cannot read the disk of a volume", error);
        let file = self.kernel.open(&device, OFlags::RDONLY).map_err(failed)?;
        let Some(content) = content::file_system(&file).map_err(failed)? else { return Ok(()) };
        let _change = self.change();
        let now = self.records.get(&record.volume.key)?.filter(|now| now == record);
        if let Some(mut record) = now {
            record.extra.content = Some(content);
            self.records.put(&record)?;
        }
        Ok(())
    }
}

/// Wipes a disk to its end, unless the backend ends before.
fn run(store: &Weak<Store>, disk: &DiskId) -> Result<()> {
    let ended = || Error::internal("the backend was closed: it goes on at the next start");
    let open = store.upgrade().ok_or_else(ended)?;
    let Some(mut wiping) = open.wipings.of(disk) else { return Ok(()) };
    let device = open.kernel.find(disk)?.ok_or_else(|| {
        Error::precondition("it is not on this node: it is wiped when it is back; if it is lost for good, remove its file from the folder wiping")
    })?;
    let failed = |error: std::io::Error| Error::io(format!("cannot wipe {}: see the kernel log", device.name), error);
    let file = open.kernel.open(&device, OFlags::RDWR | OFlags::EXCL).map_err(failed)?;
    if !wiping.proven {
        prove(&file, &device, &wiping)?;
        wiping.proven = true;
        open.wipings.put(&wiping)?;
    }
    drop(open);
    let mut noted = wiping.done;
    while wiping.wipe != Wipe::Signatures && wiping.done < device.size {
        let open = store.upgrade().ok_or_else(ended)?;
        let end = device.size.min(wiping.done + wipe::STEP);
        wipe::step(&file, wiping.wipe, wiping.done, end).map_err(|error| failed(error.into()))?;
        wiping.done = end;
        if end - noted >= NOTED {
            file.sync_all().map_err(failed)?;
            open.wipings.put(&wiping)?;
            noted = end;
        }
    }
    let open = store.upgrade().ok_or_else(ended)?;
    wipe::marks(&file, device.size).map_err(|error| failed(error.into()))?;
    file.sync_all().map_err(failed)?;
    if content::look(&file, device.size).map_err(failed)? != Content::Blank {
        return Err(Error::internal(format!("{} was zeroed and does not read as zero", device.name)));
    }
    if !device.partitions().is_empty() {
        // Those that a workload made, and which the kernel has seen.
        ioctl::read_partitions(&file).map_err(|error| failed(error.into()))?;
    }
    open.wipings.remove(disk)
}

/// That a disk which was away when its volume was deleted carries what the volume has written, or nothing.
fn prove(file: &File, device: &Device, wiping: &Wiping) -> Result<()> {
    let known = wiping.content.as_deref().map_or(Known::Nothing, |content| Known::Of(Some(content)));
    let volume =
        Volume::new(wiping.volume.clone(), wiping.generation.clone(), dunnage_driver_api::Bytes::new(device.size));
    refuse_content(file, device.size, &volume, known)
        .map_err(|error| error.during("wipe a disk that was away when its volume was deleted"))
}
