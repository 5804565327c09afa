//! What is done to a disk that is wiped.

use std::fs::File;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, Result};

use crate::config::Wipe;
use crate::content;
use crate::ioctl;

/// How much is wiped by one call to the kernel, which cannot be stopped while it runs.
pub(crate) const STEP: u64 = 256 << 20;

/// Wipes what lies between these two places.
///
/// # Errors
/// Where the disk does not take it.
pub(crate) fn step(disk: &File, how: Wipe, start: u64, end: u64) -> Result<()> {
    match how {
        Wipe::Zero => zero(disk, start, end),
        Wipe::Signatures => Ok(()),
        Wipe::Discard => match ioctl::discard(disk, start, end - start) {
            // A disk that has nothing to discard is none the worse.
            Err(Errno::OPNOTSUPP) => Ok(()),
            done => done,
        },
    }
}

/// Zeroes the places of marks on a disk of `size`, which ends every way of wiping.
///
/// # Errors
/// Where the disk does not take it.
pub(crate) fn marks(disk: &File, size: u64) -> Result<()> {
    content::places(size).into_iter().try_for_each(|(start, end)| zero(disk, start, end))
}

/// Has the disk zero it where it promises zeros, which also gives the room back where the disk counts it; else writes them.
fn zero(disk: &File, start: u64, end: u64) -> Result<()> {
    let mut flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match fallocate(disk, flags, start, end - start) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) if flags.contains(FallocateFlags::PUNCH_HOLE) => {
                flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::content::Content;

    const SIZE: u64 = 32 << 20;

    fn soiled() -> File {
        let file = tempfile::tempfile().unwrap();
        let piece = vec![7; 1 << 20];
        (0..SIZE).step_by(1 << 20).for_each(|place| file.write_all_at(&piece, place).unwrap());
        file
    }

    fn byte(file: &File, place: u64) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        byte[0]
    }

    #[test]
    fn the_places_of_marks_are_those_that_are_looked_at() {
        let disk = soiled();
        marks(&disk, SIZE).unwrap();
        assert_eq!(content::look(&disk, SIZE).unwrap(), Content::Blank);
        assert_eq!(byte(&disk, SIZE / 2), 7, "and nothing else is");
    }

    #[test]
    fn a_step_zeroes_what_it_is_told_and_nothing_else() {
        let disk = soiled();
        step(&disk, Wipe::Zero, 4096, 8192).unwrap();
        assert_eq!([0, 4095, 4096, 8191, 8192].map(|place| byte(&disk, place)), [7, 7, 0, 0, 7]);
        step(&disk, Wipe::Signatures, 8192, 12288).unwrap();
        assert_eq!(byte(&disk, 8192), 7);
    }
}
