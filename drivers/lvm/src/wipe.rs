//! Zeroing extents that may hold what was deleted.

use std::fs::File;

use dunnage_driver_api::{Error, Result};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::config::Wipe;
use crate::device::Device;

/// How much is zeroed by one call to the kernel, which cannot be stopped while it runs.
const STEP: u64 = 1 << 30;
/// Where file systems, partition tables and RAIDs have their marks: as much at the beginning and at the end, and blocks
/// between them with second superblocks.
const ENDS: u64 = 2 << 20;
const BETWEEN: [u64; 2] = [64 << 20, 128 << 20];
const BLOCK: u64 = 64 << 10;

/// Zeroes a device, durably: every byte reads zero, or those where marks live.
///
/// # Errors
/// Where the device does not take it.
pub(crate) fn wipe(device: &Device, how: Wipe) -> Result<()> {
    let (file, size) = (device.open(true)?, device.size()?);
    let failed = |error: std::io::Error| {
        Error::io(format!("cannot zero {}: see the kernel log", device.path().display()), error)
    };
    for (start, end) in ranges(size, how) {
        zero(&file, start, end).map_err(|error| failed(error.into()))?;
    }
    file.sync_all().map_err(failed)
}

fn ranges(size: u64, how: Wipe) -> Vec<(u64, u64)> {
    match how {
        Wipe::Zero => vec![(0, size)],
        Wipe::None => {
            let between = BETWEEN.map(|place| (place, place + BLOCK));
            let all = [(0, ENDS)].into_iter().chain(between).chain([(size.saturating_sub(ENDS), size)]);
            all.filter(|(start, _)| *start < size).map(|(start, end)| (start, end.min(size))).collect()
        }
    }
}

/// Has the disk zero it where it can, which also gives the room back where the disk counts it; else writes zeros.
fn zero(file: &File, start: u64, end: u64) -> rustix::io::Result<()> {
    let mut flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut place = start;
    while place < end {
        let length = STEP.min(end - place);
        match fallocate(file, flags, place, length) {
            Ok(()) => place += length,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) if flags.contains(FallocateFlags::PUNCH_HOLE) => {
                flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_or_the_places_of_marks_within_the_device() {
        assert_eq!(ranges(5 << 30, Wipe::Zero), [(0, 5 << 30)]);
        let marks = ranges(5 << 30, Wipe::None);
        assert_eq!(marks.first(), Some(&(0, 2 << 20)));
        assert_eq!(marks.last(), Some(&((5 << 30) - (2 << 20), 5 << 30)));
        assert!(marks.contains(&(64 << 20, (64 << 20) + BLOCK)));
        for size in [4 << 20, 64 << 20, 100 << 20] {
            assert!(ranges(size, Wipe::None).iter().all(|(start, end)| start < end && *end <= size), "{size}");
        }
    }

    #[test]
    fn what_is_zeroed_reads_zero_and_nothing_else_does() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 64 << 10], 0).unwrap();
        zero(&file, 8192, 16384).unwrap();
        let mut bytes = vec![1; 64 << 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let zeroed: Vec<_> = (0..bytes.len()).filter(|place| bytes[*place] == 0).collect();
        assert_eq!((zeroed.first(), zeroed.last(), zeroed.len()), (Some(&8192), Some(&16383), 8192));
    }
}
