//! What the root's file system can hold, and what of it is promised.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::root::{Folder, Reservation};
use dunnage_driver_api::{Bytes, Capacity, Error, ErrorKind, Overcommit, Result};

use crate::store::UNIT;

/// How long a measurement is good for. What images write does not change it, only what others write to the disk.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How old it may be for a refusal: others may have freed what was measured as theirs. Not less, since refused calls come
/// in crowds, and to measure is to look at every image.
const GOOD_TO_REFUSE: Duration = Duration::from_secs(1);

/// What images and others share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    /// The whole file system, in bytes.
    pub(crate) total: u64,
    /// What images may hold of it: what they hold already and what is free.
    pub(crate) for_images: u64,
    /// The lengths of all images together.
    pub(crate) lengths: u64,
}

/// The folders whose files take the room.
pub(crate) struct Folders<'a> {
    pub(crate) images: &'a Folder,
    /// Snapshots and what is being copied, where there are such; their blocks may be those of images too.
    pub(crate) copies: [Option<&'a Folder>; 2],
}

/// Looks at the file system and at every image, snapshot and unfinished copy.
///
/// # Errors
/// Where the file system does not answer.
pub(crate) fn measure(folders: &Folders<'_>) -> Result<Measured> {
    let (mut held, mut lengths) = (0_u64, 0_u64);
    for folder in std::iter::once(folders.images).chain(folders.copies.into_iter().flatten()) {
        for entry in folder.entries().map_err(folder.failed("measure", ""))? {
            let (name, _) = entry.map_err(folder.failed("measure", ""))?;
            // One that is deleted in the meantime holds nothing.
            if let Ok(stat) = folder.stat(&name) {
                held = held.saturating_add(stat.st_blocks.cast_unsigned().saturating_mul(512));
                lengths = lengths.saturating_add(stat.st_size.cast_unsigned());
            }
        }
    }
    let sizes = folders.images.sizes().map_err(folders.images.failed("measure", ""))?;
    let (total, available) = (sizes.total.get(), sizes.available.get());
    // A block that several files share is counted for each of them, but there are no more than are not free.
    Ok(Measured { total, for_images: held.min(total.saturating_sub(available)).saturating_add(available), lengths })
}

/// The room of one root.
#[derive(Debug)]
pub(crate) struct Room {
    overcommit: Overcommit,
    last: Mutex<Option<(Instant, Measured)>>,
    /// Volumes and snapshots speak for room one after the other.
    turn: Mutex<()>,
}

impl Room {
    pub(crate) fn new(overcommit: Overcommit) -> Self {
        Self { overcommit, last: Mutex::new(None), turn: Mutex::new(()) }
    }

    /// Speaks for `bytes` more, for a volume or a snapshot of `size` in all, with `take`, which is told what fits beside
    /// what it knows to be promised; `others` is what is promised beyond that.
    ///
    /// # Errors
    /// `OutOfRange` for one that the disk could not hold if it were empty, `ResourceExhausted` for one that does not fit
    /// beside what is promised.
    pub(crate) fn reserve(
        &self,
        folders: &Folders<'_>,
        bytes: Bytes,
        size: Bytes,
        others: impl Fn() -> Result<Bytes>,
        take: impl Fn(&dyn Fn(Bytes) -> Result<()>) -> Result<Reservation>,
    ) -> Result<Reservation> {
        let measured = self.measured(folders, GOOD_FOR)?;
        let disk = self.overcommit.times(measured.total);
        if size.get() > disk {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("{size} are larger than the disk allows, which is {} in all", Bytes::new(disk)),
            ));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others()?;
        let attempt = |measured: Measured| take(&|promised| self.check(promised.plus(others), bytes, measured));
        match attempt(measured) {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                attempt(self.measured(folders, GOOD_TO_REFUSE)?)
            }
            reserved => reserved,
        }
    }

    /// What is there for new volumes when this much is promised.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub(crate) fn capacity(&self, folders: &Folders<'_>, promised: Bytes) -> Result<Capacity> {
        let limit = self.overcommit.times(self.measured(folders, GOOD_FOR)?.for_images);
        let available = Bytes::new(limit.saturating_sub(promised.get()) / UNIT.get() * UNIT.get());
        Ok(Capacity::new(available).at_most(available).at_least(UNIT))
    }

    fn check(&self, promised: Bytes, more: Bytes, measured: Measured) -> Result<()> {
        let limit = self.overcommit.times(measured.for_images);
        let wanted = promised.plus(more).get();
        if wanted <= limit {
            return Ok(());
        }
        let advice = if wanted <= self.overcommit.times(measured.total) {
            // More could be promised of what is there, and it would not be there when it is written.
            let others = Bytes::new(measured.total.saturating_sub(measured.for_images));
            format!("{others} of the disk are held by what is no volume's and no snapshot's: free that")
        } else {
            "delete some, give the root a larger disk, or raise overcommit".into()
        };
        let limit = Bytes::new(limit);
        let message =
            format!("no room for {more} more: {promised} of {limit} are promised to volumes and snapshots; {advice}");
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }

    fn measured(&self, folders: &Folders<'_>, good_for: Duration) -> Result<Measured> {
        self.measured_by(good_for, || measure(folders))
    }

    /// The last measurement, where it is good still, or a new one. One caller measures while the others wait for it.
    fn measured_by(&self, good_for: Duration, measure: impl FnOnce() -> Result<Measured>) -> Result<Measured> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, measured)) = *last
            && when.elapsed() < good_for
        {
            return Ok(measured);
        }
        let measured = measure()?;
        // It counts from its end: else one that took long would be old already for those who waited.
        *last = Some((Instant::now(), measured));
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_crowd_measures_once() {
        let (room, looks, crowd) = (Room::new(Overcommit::default()), AtomicUsize::new(0), Barrier::new(16));
        let measure = || {
            looks.fetch_add(1, Ordering::Relaxed);
            // Long enough for the others to come.
            std::thread::sleep(Duration::from_millis(20));
            Ok(Measured { total: 3, for_images: 2, lengths: 1 })
        };
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    crowd.wait();
                    room.measured_by(Duration::from_secs(3600), measure).unwrap()
                });
            }
        });
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        room.measured_by(Duration::ZERO, measure).unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 2, "one that is too old is not used");
    }
}
