//! What is on a disk: nothing, the mark of a volume that was not used yet, or something.
//!
//! Nothing needs proof, as in the mount engine: every place where a file system, a RAID, a partition table or an encrypted
//! volume has its marks was read without error, and is zero, and so are samples from all over the disk. A single other byte
//! is enough to leave the disk alone. What lies between the samples is not read: proof that nothing is there would take as
//! long as the disk takes to be read whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::mark::{self, Mark};

/// How much of the beginning is read; the place of the mark is in it.
pub(crate) const HEAD: u64 = 4 << 20;
/// How much of the end: RAID members, partition tables and ZFS have marks there.
pub(crate) const TAIL: u64 = 2 << 20;
/// Where blocks between them have second superblocks, and how much is read there.
pub(crate) const BETWEEN: [u64; 3] = [64 << 20, 128 << 20, 256 << 30];
pub(crate) const BLOCK: u64 = 64 << 10;
/// How many more blocks are read, as far from each other as they can be.
const SAMPLES: u64 = 64;

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing, where anything would be.
    Blank,
    /// Nothing but the mark of a volume that was not used yet.
    Marked(Mark),
    /// Something, of which the first byte is here.
    Something(u64),
}

/// The places that are read, and that are zeroed where nothing else is: from and to.
pub(crate) fn places(size: u64) -> Vec<(u64, u64)> {
    let between = BETWEEN.map(|place| (place, place + BLOCK));
    let samples = (1..=SAMPLES).map(|number| {
        let place = size / (SAMPLES + 1) * number / BLOCK * BLOCK;
        (place, place + BLOCK)
    });
    // The ends first: what is there is found there.
    let all = [(0, HEAD)].into_iter().chain(between).chain([(size.saturating_sub(TAIL), size)]).chain(samples);
    all.filter(|(start, _)| *start < size).map(|(start, end)| (start, end.min(size))).collect()
}

/// Has what is cached of a disk read from the disk again: another machine, or another path, may have written to it.
///
/// # Errors
/// Where the kernel refuses.
pub(crate) fn forget_cached(disk: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(disk, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Looks at a disk of `size`, and not at what is cached of it.
///
/// # Errors
/// Wherever it could not be read: it is not blank then.
pub(crate) fn look(disk: &File, size: u64) -> io::Result<Content> {
    const PIECE: u64 = 64 << 10;
    const _: () = assert!(mark::PLACE.is_multiple_of(PIECE) && mark::LENGTH as u64 <= PIECE && mark::PLACE < HEAD);
    forget_cached(disk)?;
    let mut found = Content::Blank;
    let mut buffer = vec![0; PIECE as usize];
    for (start, end) in places(size) {
        for place in (start..end).step_by(PIECE as usize) {
            let piece = &mut buffer[..PIECE.min(end - place) as usize];
            disk.read_exact_at(piece, place)?;
            if place == mark::PLACE
                && let Some(mark) = piece.get(..mark::LENGTH).and_then(Mark::parse)
            {
                found = Content::Marked(mark);
                piece[..mark::LENGTH].fill(0);
            }
            let byte = piece.iter().position(|byte| *byte != 0);
            if let Some(byte) = byte {
                return Ok(Content::Something(place + byte as u64));
            }
        }
    }
    Ok(found)
}

/// The identity of the file system on a disk, as `ext4:<uuid>`; `None` where there is none that the host makes.
///
/// # Errors
/// Where the disk cannot be read.
pub(crate) fn file_system(disk: &File) -> io::Result<Option<String>> {
    forget_cached(disk)?;
    let mut head = vec![0; 68 << 10];
    disk.read_exact_at(&mut head, 0)?;
    let kinds: [(&str, usize, &[u8], usize); 3] = [
        ("xfs", 0, b"XFSB", 32),
        ("ext4", 1024 + 0x38, &[0x53, 0xef], 1024 + 0x68),
        ("btrfs", 0x10040, b"_BHRfS_M", 0x10020),
    ];
    let found = kinds.iter().find(|(_, place, magic, _)| head[*place..].starts_with(magic));
    Ok(found.map(|(name, _, _, uuid)| {
        let uuid: String = head[*uuid..uuid + 16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{uuid}")
    }))
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::VolumeKey;

    use super::*;

    const SIZE: u64 = 200 << 20;

    fn disk(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    fn mark() -> Mark {
        Mark::new(&"aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(), &VolumeKey::of_name("a"), &"abc".parse().unwrap())
    }

    #[test]
    fn a_single_byte_where_marks_live_is_something() {
        for size in [SIZE, 16 << 20] {
            assert_eq!(look(&disk(size), size).unwrap(), Content::Blank);
            let inner = [1 << 20, mark::PLACE, mark::PLACE + 4096, 64 << 20, (128 << 20) + BLOCK - 1];
            for place in [0, 510, HEAD - 1, size - TAIL, size - 1].into_iter().chain(inner) {
                if place < size {
                    let disk = disk(size);
                    disk.write_all_at(&[1], place).unwrap();
                    assert_eq!(look(&disk, size).unwrap(), Content::Something(place), "{place} of {size}");
                }
            }
        }
    }

    #[test]
    fn a_mark_is_one_only_where_there_is_nothing_else() {
        let disk = disk(SIZE);
        mark().write(&disk).unwrap();
        assert_eq!(look(&disk, SIZE).unwrap(), Content::Marked(mark()));
        disk.write_all_at(&[1], SIZE - 1).unwrap();
        assert_eq!(look(&disk, SIZE).unwrap(), Content::Something(SIZE - 1));
    }

    #[test]
    fn data_without_a_mark_of_any_file_system_is_seen_all_over_a_disk() {
        let size = 512 << 20;
        for part in 0..8 {
            let disk = disk(size);
            // A piece of it, somewhere: a raw database that begins and ends with zeros.
            let (start, length) = ((16 << 20) + part * (60 << 20), 9 << 20);
            for place in (start..start + length).step_by(BLOCK as usize) {
                disk.write_all_at(&[7], place).unwrap();
            }
            assert!(matches!(look(&disk, size).unwrap(), Content::Something(_)), "{part}");
        }
        let size = (256 << 30) + (8 << 20);
        let disk = disk(size);
        disk.write_all_at(b"_BHRfS_M", (256 << 30) + 0x40).unwrap();
        assert_eq!(look(&disk, size).unwrap(), Content::Something((256 << 30) + 0x40));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_never_blank() {
        assert!(look(&disk(SIZE), SIZE + (1 << 20)).is_err());
    }

    #[test]
    fn places_lie_within_the_disk() {
        for size in [1 << 20, 16 << 20, 64 << 20, (64 << 20) + 4096, SIZE] {
            assert!(places(size).iter().all(|(start, end)| start < end && *end <= size), "{size}: {:?}", places(size));
        }
    }

    #[test]
    fn a_file_system_has_the_identity_that_its_superblock_says() {
        for (place, magic, uuid, found) in [
            (0, &b"XFSB"[..], 32, "xfs:07070707070707070707070707070707"),
            (1080, &[0x53, 0xef], 1128, "ext4:07070707070707070707070707070707"),
            (0x10040, b"_BHRfS_M", 0x10020, "btrfs:07070707070707070707070707070707"),
        ] {
            let disk = disk(SIZE);
            disk.write_all_at(magic, place).unwrap();
            disk.write_all_at(&[7; 16], uuid).unwrap();
            assert_eq!(file_system(&disk).unwrap().as_deref(), Some(found));
        }
        assert_eq!(file_system(&disk(SIZE)).unwrap(), None);
    }
}
