//! What is done to a disk that is wiped.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, Result};

use crate::config::Wipe;
use crate::wiping::Wiping;
use crate::{content, ioctl, mark};

/// How a disk is wiped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How much by one call to the kernel, which cannot be stopped while it runs.
    step: u64,
    /// How much until it is noted how far that is: so much is done twice after a kill.
    noted: u64,
}

/// That of every disk.
pub(crate) const PACE: Pace = Pace { step: 256 << 20, noted: 16 << 30 };

/// Wipes all of a disk but the mark, from where that has ended, while `is_open`, and has it noted now and then how far it is.
/// Durable when it returns.
///
/// # Errors
/// Where the disk does not take it, or it cannot be noted.
pub(crate) fn all(
    disk: &File,
    wiping: &mut Wiping,
    pace: Pace,
    is_open: impl Fn() -> bool,
    mut note: impl FnMut(&Wiping) -> io::Result<()>,
) -> io::Result<()> {
    let mut noted = wiping.done;
    while wiping.wipe != Wipe::Signatures && wiping.done < wiping.size {
        if !is_open() {
            return Err(io::Error::other("the backend was closed: it goes on at the next start"));
        }
        let end = wiping.size.min(wiping.done + pace.step);
        step(disk, wiping.wipe, wiping.done, end)?;
        wiping.done = end;
        if end - noted >= pace.noted {
            disk.sync_all()?;
            note(wiping)?;
            noted = end;
        }
    }
    disk.sync_all()
}

/// Wipes what lies between these two places.
///
/// # Errors
/// Where the disk does not take it.
fn step(disk: &File, how: Wipe, start: u64, end: u64) -> Result<()> {
    around_mark(start, end).into_iter().try_for_each(|(start, end)| part(disk, how, start, end))
}

/// What of this is not the place of the mark, which goes last.
fn around_mark(start: u64, end: u64) -> Vec<(u64, u64)> {
    const END: u64 = mark::PLACE + mark::LENGTH as u64;
    let parts = [(start, end.min(mark::PLACE)), (start.max(END), end)];
    parts.into_iter().filter(|(start, end)| start < end).collect()
}

fn part(disk: &File, how: Wipe, start: u64, end: u64) -> Result<()> {
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

/// Zeroes the places that are looked at on a disk of `size`, all but that of our own mark.
///
/// # Errors
/// Where the disk does not take it.
pub(crate) fn marks(disk: &File, size: u64) -> Result<()> {
    let places = content::places(size).into_iter().flat_map(|(start, end)| around_mark(start, end));
    places.into_iter().try_for_each(|(start, end)| zero(disk, start, end))
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
    use std::cell::Cell;
    use std::os::unix::fs::FileExt;

    use dunnage_driver_api::{Bytes, Volume, VolumeKey};

    use super::*;
    use crate::content::Content;
    use crate::identity::DiskId;
    use crate::mark::Mark;

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
        assert_eq!(content::look(&disk, SIZE).unwrap(), Content::Something(mark::PLACE));
        Mark::erase(&disk).unwrap();
        assert_eq!(content::look(&disk, SIZE).unwrap(), Content::Blank);
        let left = (0..SIZE).step_by(1 << 16).filter(|place| byte(&disk, *place) == 7).count();
        assert!(left > 300, "and nothing else is: {left}");
    }

    #[test]
    fn a_step_zeroes_what_it_is_told_and_nothing_else() {
        let disk = soiled();
        step(&disk, Wipe::Zero, 4096, 8192).unwrap();
        assert_eq!([0, 4095, 4096, 8191, 8192].map(|place| byte(&disk, place)), [7, 7, 0, 0, 7]);
        step(&disk, Wipe::Signatures, 8192, 12288).unwrap();
        assert_eq!(byte(&disk, 8192), 7);
    }

    #[test]
    fn a_wipe_that_was_cut_off_goes_on_from_where_it_was_noted() {
        let disk = soiled();
        let volume = Volume::new(VolumeKey::of_name("a"), "abc".parse().unwrap(), Bytes::new(SIZE));
        let mut wiping = Wiping::new(DiskId("serial:a".into()), &volume, Wipe::Zero);
        let (pace, mut noted, steps) = (Pace { step: 2 << 20, noted: 4 << 20 }, wiping.clone(), Cell::new(0));
        let is_open = || steps.replace(steps.get() + 1) < 7;
        let note = |wiping: &Wiping| {
            noted = wiping.clone();
            Ok(())
        };
        all(&disk, &mut wiping, pace, is_open, note).unwrap_err();
        // Seven steps were done, and six of them are known.
        assert_eq!((wiping.done, noted.done), (14 << 20, 12 << 20));
        assert_eq!([(14 << 20) - 1, 14 << 20].map(|place| byte(&disk, place)), [0, 7]);
        [0, 12 << 20].iter().for_each(|place| disk.write_all_at(&[9], *place).unwrap());
        all(&disk, &mut noted, pace, || true, |_| Ok(())).unwrap();
        assert_eq!(noted.done, SIZE);
        assert_eq!([0, 12 << 20, SIZE - 1].map(|place| byte(&disk, place)), [9, 0, 0], "only the rest is done again");
    }

    #[test]
    fn the_mark_stays_until_all_else_is_wiped() {
        let disk = soiled();
        step(&disk, Wipe::Zero, 0, SIZE).unwrap();
        let places = [0, mark::PLACE - 1, mark::PLACE, mark::PLACE + 4095, mark::PLACE + 4096, SIZE - 1];
        assert_eq!(places.map(|place| byte(&disk, place)), [0, 0, 7, 7, 0, 0]);
    }
}
