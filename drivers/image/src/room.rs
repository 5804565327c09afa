//! What the root's file system can hold, and what of it is promised.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::root::{Folder, Records, Reservation};
use dunnage_driver_api::{Bytes, Capacity, Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Overcommit;
use crate::size::UNIT;

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

/// Looks at the file system and at every image.
///
/// # Errors
/// Where the file system does not answer.
pub(crate) fn measure(images: &Folder) -> Result<Measured> {
    let failed = |error| images.failed("measure", "")(error);
    let (mut held, mut lengths) = (0_u64, 0_u64);
    for entry in images.entries().map_err(failed)? {
        let (name, _) = entry.map_err(failed)?;
        // One that is deleted in the meantime holds nothing.
        if let Ok(stat) = images.stat(&name) {
            held = held.saturating_add(stat.st_blocks.cast_unsigned().saturating_mul(512));
            lengths = lengths.saturating_add(stat.st_size.cast_unsigned());
        }
    }
    let sizes = images.sizes().map_err(failed)?;
    Ok(Measured { total: sizes.total.get(), for_images: held.saturating_add(sizes.available.get()), lengths })
}

/// The room of one root.
#[derive(Debug)]
pub(crate) struct Room {
    overcommit: Overcommit,
    last: Mutex<Option<(Instant, Measured)>>,
}

impl Room {
    pub(crate) fn new(overcommit: Overcommit) -> Self {
        Self { overcommit, last: Mutex::new(None) }
    }

    /// Speaks for `bytes` more, for a volume of `size` in all.
    ///
    /// # Errors
    /// `OutOfRange` for a volume that the disk could not hold if it were empty, `ResourceExhausted` for one that does
    /// not fit beside what is promised.
    pub(crate) fn reserve<E: Serialize + DeserializeOwned>(
        &self,
        images: &Folder,
        records: &Records<E>,
        bytes: Bytes,
        size: Bytes,
    ) -> Result<Reservation> {
        let fits = |measured: Measured| {
            let limit = self.overcommit.times(measured.for_images);
            move |promised: Bytes| check(promised, bytes, limit)
        };
        let measured = self.measured(images, GOOD_FOR)?;
        let disk = self.overcommit.times(measured.total);
        if size.get() > disk {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("a volume of {size} is larger than the disk allows, which is {} in all", Bytes::new(disk)),
            ));
        }
        match records.reserve(bytes, fits(measured)) {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                records.reserve(bytes, fits(self.measured(images, GOOD_TO_REFUSE)?))
            }
            reserved => reserved,
        }
    }

    /// What is there for new volumes when this much is promised.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub(crate) fn capacity(&self, images: &Folder, promised: Bytes) -> Result<Capacity> {
        let limit = self.overcommit.times(self.measured(images, GOOD_FOR)?.for_images);
        let available = Bytes::new(limit.saturating_sub(promised.get()) / UNIT.get() * UNIT.get());
        Ok(Capacity::new(available).at_most(available).at_least(UNIT))
    }

    fn measured(&self, images: &Folder, good_for: Duration) -> Result<Measured> {
        self.measured_by(good_for, || measure(images))
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

fn check(promised: Bytes, more: Bytes, limit: u64) -> Result<()> {
    if promised.get().saturating_add(more.get()) <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResourceExhausted,
        format!(
            "no room for {more} more: {promised} of {} are promised to volumes; delete some, give the root a larger \
             disk, or raise overcommit",
            Bytes::new(limit)
        ),
    ))
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
