//! Choosing a disk and making it a volume.
//!
//! The disk gets its mark first and the volume its record last. Cut off between, there is a disk with a mark of this instance
//! for which there is no volume: it counts as free, and the next volume that gets it writes its own mark.

use std::time::{Duration, Instant};

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{
    Access, Bytes, Capacity, CapacityRange, Context, CreateVolume, Error, ErrorKind, Parameters, Result, Room, Volume,
    VolumeKey,
};
use rustix::fs::OFlags;

use crate::content::{self, Content};
use crate::kernel::{Device, DiskId};
use crate::mark::Mark;
use crate::rules::{self, Named};
use crate::store::{Extra, Store};

/// How long a disk that is being wiped is waited for: as long as one takes that discards.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long what was seen of a disk that is nobody's is good enough to tell how much room there is.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// How many reasons are told.
const REASONS: usize = 4;

/// A disk that is spoken for until this is dropped.
struct Spoken<'a> {
    store: &'a Store,
    disk: DiskId,
    is_kept: bool,
}

impl Drop for Spoken<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.store.taken().disks.remove(&self.disk);
            self.store.freed.notify_all();
        }
    }
}

impl Store {
    /// Makes the smallest free disk that is large enough the volume.
    pub(crate) fn take(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        if self.unreadable > 0 {
            return Err(Error::precondition(format!(
                "{} records of volumes cannot be read, so that it is not known which disks are theirs: see the log for \
                 which, restore them from a backup, and restart the host",
                self.unreadable
            )));
        }
        let range = self.range(request)?;
        let until = cx.deadline.min(Instant::now() + PATIENCE);
        loop {
            let (mut fit, mut reasons) = (Vec::new(), Vec::new());
            for Named { device, fit: it } in rules::named(&self.config, &self.kernel)? {
                match it {
                    Ok(disk) => fit.push((device.size, disk, device)),
                    Err(why) => reasons.push(format!("{}: {why}", device.name)),
                }
            }
            let all = fit.len();
            fit.retain(|(size, ..)| range.holds(Bytes::new(*size)));
            if fit.is_empty() && all > 0 {
                let message = format!("asked for {range}, and of {all} disks of the backend none has such a size");
                return Err(Error::new(ErrorKind::OutOfRange, message));
            }
            fit.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            let mut wiping = false;
            for (_, disk, device) in fit {
                if self.wipings.of(&disk).is_some() {
                    wiping = true;
                    reasons.push(format!("{}: it is being wiped", device.name));
                    continue;
                }
                let Some(spoken) = self.speak_for(&disk, &request.key) else {
                    reasons.push(format!("{}: it is a volume", device.name));
                    continue;
                };
                match self.refuse_used(&device) {
                    Ok(()) => return self.make(spoken, &device, request),
                    Err(why) => reasons.push(format!("{}: {why}", device.name)),
                }
            }
            if !wiping || !self.wait_for_wiped(until) {
                return Err(none_is_free(&reasons));
            }
        }
    }

    /// What is asked for, and no less than the file systems need that the volume may get.
    fn range(&self, request: &CreateVolume) -> Result<CapacityRange> {
        let mounts = request.capabilities.iter().filter_map(|capability| match &capability.access {
            Access::Mount(mount) => Some(mount.fs_type.unwrap_or(self.config.fs_type)),
            Access::Block => None,
        });
        let Some(fs_type) = mounts.max_by_key(|fs_type| fs_type.least_device()) else { return Ok(request.capacity) };
        let least = fs_type.least_device();
        if request.capacity.limit().is_some_and(|limit| limit < least) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("{fs_type} needs a volume of at least {least}: asked for {}", request.capacity),
            ));
        }
        request.capacity.at_least(least)
    }

    /// Takes a disk out of those that others may choose; `None` where it is taken.
    fn speak_for(&self, disk: &DiskId, key: &VolumeKey) -> Option<Spoken<'_>> {
        let mut taken = self.taken();
        if taken.disks.contains_key(disk) {
            return None;
        }
        taken.disks.insert(disk.clone(), key.clone());
        Some(Spoken { store: self, disk: disk.clone(), is_kept: false })
    }

    /// That a disk which nobody of ours has is free.
    fn refuse_used(&self, device: &Device) -> Result<(), String> {
        rules::refuse_used(&self.kernel, device, |mark| self.is_remains(mark))
    }

    /// Whether a mark is what a create of ours left that was cut off.
    fn is_remains(&self, mark: &Mark) -> bool {
        let is_of_volume = || match self.records.get(&mark.volume) {
            Ok(record) => record.is_some_and(|record| record.volume.generation == mark.generation),
            Err(_) => true,
        };
        mark.instance == *self.root.instance() && !is_of_volume()
    }

    fn make(&self, mut spoken: Spoken<'_>, device: &Device, request: &CreateVolume) -> Result<Volume> {
        let path = self.kernel.path(device);
        let failed = |error| Error::io(format!("cannot mark {} as taken", path.display()), error);
        let volume = request.volume(Bytes::new(device.size))?;
        let mark = Mark::new(self.root.instance(), &volume.key, &volume.generation);
        let file = self.kernel.open(device, OFlags::RDWR | OFlags::EXCL).map_err(failed)?;
        // Once more, now that nobody else can format or mount it.
        match content::look(&file, device.size).map_err(failed)? {
            Content::Blank => {}
            Content::Marked(mark) if self.is_remains(&mark) => {}
            _ => return Err(failed(std::io::Error::other("somebody else has just taken it"))),
        }
        mark.write(&file).map_err(failed)?;
        let extra = Extra {
            disk: spoken.disk.clone(),
            fs_type: request.fs_type(self.config.fs_type),
            mounted: request.capabilities.iter().all(|capability| capability.access != Access::Block),
            used: false,
            content: None,
        };
        let put = self.records.put(&Record { volume: volume.clone(), extra });
        // A record that was written but may not be durable keeps its disk: the next attempt finds both.
        spoken.is_kept = put.is_ok() || !matches!(self.records.get(&volume.key), Ok(None));
        put.map(|()| volume)
    }

    /// Waits until a disk was wiped; `false` where none was in time.
    fn wait_for_wiped(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let taken = self.taken();
        // Where one has come free between the look and the wait, the short time does for a second look.
        drop(self.freed.wait_timeout(taken, left.min(Duration::from_millis(200))));
        true
    }

    /// Whether a disk is free, by what was seen of it not long ago.
    fn seems_free(&self, disk: &DiskId, device: &Device) -> bool {
        if self.wipings.of(disk).is_some() {
            return false;
        }
        let taken = self.taken();
        if taken.disks.contains_key(disk) {
            return false;
        }
        if let Some((when, free)) = taken.seen.get(disk)
            && when.elapsed() < GOOD_FOR
        {
            return *free;
        }
        drop(taken);
        let free = self.refuse_used(device).is_ok();
        self.taken().seen.insert(disk.clone(), (Instant::now(), free));
        free
    }
}

fn none_is_free(reasons: &[String]) -> Error {
    let told = reasons.iter().take(REASONS).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = reasons.len().saturating_sub(REASONS);
    let text = match (reasons.len(), more) {
        (0, _) => "no disk of this node is named by `devices`".into(),
        (_, 0) => told,
        (_, more) => format!("{told}; and {more} more"),
    };
    Error::new(
        ErrorKind::ResourceExhausted,
        format!("no disk is free for it: {text}; `dunnage check` tells of each disk"),
    )
}

impl Room for Store {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        let mut free = Vec::new();
        for Named { device, fit } in rules::named(&self.config, &self.kernel)? {
            if let Ok(disk) = fit
                && self.seems_free(&disk, &device)
            {
                free.push(device.size);
            }
        }
        let sum = Bytes::cut(free.iter().map(|size| u128::from(*size)).sum());
        Ok(Capacity::new(sum).at_most(Bytes::new(free.into_iter().max().unwrap_or_default())))
    }
}
