//! What is on a device, read before anything is written to it.
//!
//! There are three answers: blank, found, and an error. Blank needs proof: all of the device that may hold a mark was
//! read without error and is zero. There is no second opinion by another program: that of `blkid` rests on the formats
//! it knows, while here a single byte that is not zero is enough to refuse.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dunnage_driver_api::{Bytes, Error, FsType, Result};

use super::signature::{self, BETWEEN, BLOCK, HEAD, TAIL};

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nothing: it was read and is zero where marks live.
    Blank,
    /// A finished file system that can be mounted.
    FileSystem(FileSystem),
    /// Something else that has a name.
    Other(&'static str),
    /// Bytes of no known form, the first at this offset; also a file system that was never finished.
    Unknown(u64),
}

/// A file system as its superblock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) fs_type: FsType,
    /// How much of the device it uses.
    pub(super) size: Bytes,
    /// Whether it noted an error of its own.
    pub(super) has_errors: bool,
}

/// Looks at a device of `size`, named `path` in errors.
///
/// # Errors
/// Wherever the device could not be read: it is not blank then, and must not be formatted.
pub(super) fn probe(device: &File, path: &Path, size: Bytes) -> Result<Probe> {
    let size = size.get();
    if size == 0 {
        return Err(Error::precondition(format!("{} has no size: it is not ready, or detached", path.display())));
    }
    let failed = |start: u64| {
        let path = path.display();
        move |error| {
            let message =
                format!("cannot read {path} at {start}, so it is neither mounted nor formatted: check the device");
            Error::io(message, error)
        }
    };
    let tail_start = size.saturating_sub(TAIL);
    let mut parts = [(0, HEAD), (tail_start, TAIL), (BETWEEN[0], BLOCK), (BETWEEN[1], BLOCK)];
    parts.sort_unstable();
    let mut first = None;
    for (start, length) in parts {
        if first.is_none() {
            first = first_byte(device, start, (start + length).min(size)).map_err(failed(start))?;
        }
    }
    let Some(first) = first else { return Ok(Probe::Blank) };
    let read = |start: u64, length: u64| {
        let mut bytes = vec![0; usize::try_from(length.min(size.saturating_sub(start))).unwrap_or_default()];
        device.read_exact_at(&mut bytes, start).map(|()| bytes).map_err(failed(start))
    };
    let (head, tail) = (read(0, HEAD)?, read(tail_start, TAIL)?);
    if let Some(name) = signature::container(&head).or_else(|| signature::raid_at_end(&tail, size)) {
        return Ok(Probe::Other(name));
    }
    if let Some(found) = xfs(&head).or_else(|| ext4(&head)).or_else(|| btrfs(&head)) {
        return Ok(found);
    }
    Ok(signature::other(&head).map_or(Probe::Unknown(first), Probe::Other))
}

/// Where the first byte between these two places is that is not zero. New devices are blank, so this is what most are
/// asked: it goes by in small pieces, since many are asked at once.
fn first_byte(device: &File, start: u64, end: u64) -> io::Result<Option<u64>> {
    const PIECE: u64 = 64 << 10;
    let mut buffer = vec![0; PIECE as usize];
    for place in (start..end).step_by(PIECE as usize) {
        let piece = &mut buffer[..PIECE.min(end - place) as usize];
        device.read_exact_at(piece, place)?;
        // Without a branch for each byte, which would take as long as the reading.
        if piece.iter().fold(0, |all, byte| all | byte) != 0 {
            return Ok(piece.iter().position(|&byte| byte != 0).map(|byte| place + byte as u64));
        }
    }
    Ok(None)
}

fn xfs(head: &[u8]) -> Option<Probe> {
    head.starts_with(b"XFSB").then_some(())?;
    // mkfs.xfs clears this flag with its last write.
    if field::<1>(head, 126)? != [0] {
        return Some(Probe::Unknown(0));
    }
    let block = u32::from_be_bytes(field(head, 4)?);
    let blocks = u64::from_be_bytes(field(head, 8)?);
    Some(found(FsType::Xfs, u64::from(block).saturating_mul(blocks), false))
}

/// mke2fs writes the superblock with its last write.
fn ext4(head: &[u8]) -> Option<Probe> {
    const IS_JOURNAL: u32 = 0x8;
    const HAS_64_BITS: u32 = 0x80;
    const ERRORS: u16 = 0x2;
    let superblock = head.get(1024..2048)?;
    (field(superblock, 0x38)? == [0x53, 0xef]).then_some(())?;
    let features = u32::from_le_bytes(field(superblock, 0x60)?);
    if features & IS_JOURNAL != 0 {
        return Some(Probe::Other("the journal of an ext4 file system"));
    }
    let high = if features & HAS_64_BITS != 0 { u32::from_le_bytes(field(superblock, 0x150)?) } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(u32::from_le_bytes(field(superblock, 4)?));
    let block = 1024_u64.checked_shl(u32::from_le_bytes(field(superblock, 24)?)).unwrap_or(u64::MAX);
    let state = u16::from_le_bytes(field(superblock, 0x3a)?);
    Some(found(FsType::Ext4, block.saturating_mul(blocks), state & ERRORS != 0))
}

/// mkfs.btrfs writes this mark with its last write, and another one before.
fn btrfs(head: &[u8]) -> Option<Probe> {
    let superblock = head.get(0x10000..0x11000)?;
    superblock.get(0x40..)?.starts_with(b"_BHRfS_M").then_some(())?;
    if u64::from_le_bytes(field(superblock, 0x88)?) != 1 {
        return Some(Probe::Other("a part of a btrfs file system of several devices"));
    }
    Some(found(FsType::Btrfs, u64::from_le_bytes(field(superblock, 0xd1)?), false))
}

fn found(fs_type: FsType, size: u64, has_errors: bool) -> Probe {
    Probe::FileSystem(FileSystem { fs_type, size: Bytes::new(size), has_errors })
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SIZE: u64 = 256 << 20;

    fn probe_with(writes: &[(u64, &[u8])], size: u64) -> Result<Probe> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in writes {
            file.write_all_at(bytes, *offset).unwrap();
        }
        probe(&file, Path::new("/dev/test"), Bytes::new(size))
    }

    #[test]
    fn only_zeros_where_marks_live_are_blank() {
        assert_eq!(probe_with(&[], SIZE).unwrap(), Probe::Blank);
        assert_eq!(probe_with(&[], 4096).unwrap(), Probe::Blank);
        for offset in [0, 777, HEAD - 1, 64 << 20, 128 << 20, SIZE - TAIL, SIZE - 1] {
            assert_eq!(probe_with(&[(offset, &[1])], SIZE).unwrap(), Probe::Unknown(offset), "{offset}");
        }
    }

    #[test]
    fn what_occupies_a_device_is_named_even_with_the_remains_of_a_file_system() {
        let ext4: (u64, &[u8]) = (1024 + 0x38, &[0x53, 0xef]);
        for (offset, magic, name) in [
            (512, &b"LABELONE"[..], "LVM"),
            (0, b"LUKS\xba\xbe", "LUKS"),
            (4096, b"\xfc\x4e\x2b\xa9", "RAID"),
            (SIZE - 8192, b"\xfc\x4e\x2b\xa9", "RAID"),
            (SIZE - 65536, b"\xfc\x4e\x2b\xa9", "RAID"),
            (512, b"EFI PART", "GPT"),
            (4086, b"SWAPSPACE2", "swap"),
        ] {
            let Probe::Other(found) = probe_with(&[(offset, magic), ext4], SIZE).unwrap() else { panic!("{name}") };
            assert!(found.contains(name), "{found}");
        }
        for (offset, magic, name) in
            [(3, &b"NTFS    "[..], "NTFS"), (0x52, b"FAT32   ", "FAT"), (510, b"\x55\xaa", "MBR")]
        {
            let Probe::Other(found) = probe_with(&[(offset, magic)], SIZE).unwrap() else { panic!("{name}") };
            assert!(found.contains(name), "{found}");
        }
    }

    #[test]
    fn an_unfinished_xfs_is_no_file_system() {
        assert_eq!(probe_with(&[(0, b"XFSB"), (126, &[1])], SIZE).unwrap(), Probe::Unknown(0));
    }

    #[test]
    fn a_device_that_cannot_be_read_is_an_error_and_never_blank() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 4096]).unwrap();
        let write_only = File::options().write(true).open(file.path()).unwrap();
        assert!(probe(&write_only, file.path(), Bytes::new(4096)).is_err());
        // A device that is shorter than it says: what lies behind its end is not zero, it is unknown.
        assert!(probe(file.as_file(), file.path(), Bytes::new(SIZE)).is_err());
        assert!(probe(file.as_file(), file.path(), Bytes::ZERO).is_err());
    }
}
