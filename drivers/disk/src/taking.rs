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

use crate::identity::DiskId;
use crate::kernel::Device;
use crate::mark::Mark;
use crate::rules::{self, Named};
use crate::store::{Extra, LOOK, Store};

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
            let (mut fit, mut sizes, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
            for Named { device, fit: it } in rules::named(&self.config, &self.kernel)? {
                // What cannot be a volume now may be one later.
                if self.config.size.holds(device.size) {
                    sizes.push(device.size);
                }
                match it {
                    Ok(disk) if range.holds(Bytes::new(device.size)) => fit.push((device.size, disk, device)),
                    Ok(_) => {}
                    Err(why) => reasons.push(format!("{}: {why}", device.name)),
                }
            }
            if fit.is_empty() && !sizes.is_empty() && !sizes.iter().any(|size| range.holds(Bytes::new(*size))) {
                let all = sizes.len();
                let message = format!("asked for {range}, and of {all} disks of the backend none has such a size");
                return Err(Error::new(ErrorKind::OutOfRange, message));
            }
            fit.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            let mut wiping = false;
            for (_, disk, device) in fit {
                if self.wipings.overlap(&disk) {
                    let (is_now, why) = self.why_not_wiped(&disk);
                    wiping |= is_now;
                    reasons.push(format!("{}: {why}", device.name));
                    continue;
                }
                if !is_mounted(request) && self.left.overlap(&disk) {
                    reasons.push(format!(
                        "{}: what a volume has left is on it still, since `wipe` was another then; zero it, and remove its \
                         file from the folder left, for raw volumes",
                        device.name
                    ));
                    continue;
                }
                let Some(spoken) = self.speak_for(&disk, &request.key) else {
                    reasons.push(format!("{}: it is a volume, or a part or the whole of one", device.name));
                    continue;
                };
                match self.mark(&disk, &device, request) {
                    Ok(volume) => return self.make(spoken, volume, request),
                    Err(why) => reasons.push(format!("{}: {why}", device.name)),
                }
            }
            if !wiping || !self.wait_for_wiped(until) {
                return Err(none_is_free(&reasons));
            }
        }
    }

    /// Why a disk that is to be wiped is not free yet, and whether it soon may be.
    fn why_not_wiped(&self, disk: &DiskId) -> (bool, String) {
        let taken = self.taken();
        match taken.said.iter().find(|(other, _)| other.overlaps(disk)) {
            Some((_, why)) => (false, format!("it is to be wiped, and cannot be: {why}")),
            None => (true, "it is being wiped".into()),
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

    /// Takes a disk out of those that others may choose; `None` where it is taken, or what it lies on, or a part of it.
    fn speak_for(&self, disk: &DiskId, key: &VolumeKey) -> Option<Spoken<'_>> {
        let mut taken = self.taken();
        if taken.overlap(disk) || self.wipings.overlap(disk) {
            return None;
        }
        taken.disks.insert(disk.clone(), key.clone());
        Some(Spoken { store: self, disk: disk.clone(), is_kept: false })
    }

    /// Whether a mark is what a create of ours left that was cut off.
    fn is_remains(&self, mark: &Mark) -> bool {
        let is_of_volume = || match self.records.get(&mark.volume) {
            Ok(record) => record.is_some_and(|record| record.volume.generation == mark.generation),
            Err(_) => true,
        };
        !mark.wiping && mark.instance == *self.root.instance() && !is_of_volume()
    }

    /// Marks a disk that is free as a volume's. One that fails is in the way of no other.
    fn mark(&self, disk: &DiskId, device: &Device, request: &CreateVolume) -> Result<Volume, String> {
        if let Some(why) = self.refuse_used(disk, device)? {
            return Err(why);
        }
        let _lock = self.kernel.lock(device).map_err(rules::cannot)?;
        let (file, now) = self.kernel.open(disk, device, OFlags::RDWR | OFlags::EXCL).map_err(rules::cannot)?;
        if now.size != device.size {
            return Err("its size has just changed".into());
        }
        // Once more, now that nobody else can format or mount it.
        rules::refuse_carrying(&file, now.size, |mark| self.is_remains(mark))?;
        let volume = request.volume(Bytes::new(now.size)).map_err(|error| error.report())?;
        let mark = Mark::new(self.root.instance(), &volume.key, &volume.generation);
        mark.write(&file).map_err(|error| format!("it cannot be marked as taken: {error}"))?;
        Ok(volume)
    }

    fn make(&self, mut spoken: Spoken<'_>, volume: Volume, request: &CreateVolume) -> Result<Volume> {
        let extra = Extra {
            disk: spoken.disk.clone(),
            fs_type: request.fs_type(self.config.fs_type),
            mounted: is_mounted(request),
            used: false,
            content: None,
        };
        let put = self.records.put(&Record { volume: volume.clone(), extra });
        // A record that was written but may not be durable keeps its disk: the next attempt finds both.
        spoken.is_kept = put.is_ok() || !matches!(self.records.get(&volume.key), Ok(None));
        put.map(|()| volume)
    }

    /// Why a disk that nobody of ours has is not free: looked at without holding it, so that nobody is disturbed, and in
    /// time, whatever the disk does.
    fn refuse_used(&self, disk: &DiskId, device: &Device) -> Result<Option<String>, String> {
        let (kernel, id, device) = (self.kernel.clone(), disk.clone(), device.clone());
        let mut remains = None;
        let look = move || {
            let looked = rules::refuse_used(&kernel, &id, &device, |mark| {
                remains = Some(mark.clone());
                true
            });
            (looked, remains)
        };
        let answer = self.questions.ask(disk, LOOK, look).map_err(|error| error.report())?;
        Ok(match answer {
            None => Some("it does not answer".into()),
            Some((Err(why), _)) => Some(why),
            Some((Ok(()), Some(mark))) if !self.is_remains(&mark) => Some(rules::marked(&mark)),
            Some((Ok(()), _)) => None,
        })
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
        if self.wipings.overlap(disk) {
            return false;
        }
        let taken = self.taken();
        if taken.overlap(disk) {
            return false;
        }
        if let Some((when, free)) = taken.seen.get(disk)
            && when.elapsed() < GOOD_FOR
        {
            return *free;
        }
        drop(taken);
        let free = matches!(self.refuse_used(disk, device), Ok(None));
        self.taken().seen.insert(disk.clone(), (Instant::now(), free));
        free
    }
}

/// Whether a volume is asked for as a file system alone.
fn is_mounted(request: &CreateVolume) -> bool {
    request.capabilities.iter().all(|capability| capability.access != Access::Block)
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
