//! The GUID of a partition, as the partition table of its disk says it: older kernels do not tell it, and a link that udev
//! would have to make may be missing or old.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What no partition is handed out as, though it may be empty: EFI system, BIOS boot, PReP boot, Microsoft reserved.
const RESERVED: [&str; 4] = [
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "21686148-6449-6e6f-744e-656564454649",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae",
];

/// The GUID of partition `number`, which begins at this byte, on a disk with logical blocks of `block` bytes; `None` where the
/// disk has no GPT, or its GPT has no such partition there, or one that a firmware or a system has for itself.
///
/// # Errors
/// Where the disk cannot be read.
pub(crate) fn guid(disk: &File, block: u64, number: u32, start: u64) -> io::Result<Option<String>> {
    let mut header = [0; 92];
    disk.read_exact_at(&mut header, block)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let (entries, count, size) = (long(&header, 72), int(&header, 80), int(&header, 84));
    // The specification wants 128 times a power of two; what is larger than a block is no table that anybody makes.
    if number == 0 || number > count || !(128..=4096).contains(&size) {
        return Ok(None);
    }
    let Some(place) =
        entries.checked_mul(block).and_then(|all| all.checked_add(u64::from(number - 1) * u64::from(size)))
    else {
        return Ok(None);
    };
    let mut entry = [0; 128];
    disk.read_exact_at(&mut entry, place)?;
    let begins = long(&entry, 32).checked_mul(block) == Some(start);
    let guid = &entry[16..32];
    let is_reserved = RESERVED.contains(&text(&entry[..16]).as_str());
    Ok((begins && !is_reserved && guid.iter().any(|byte| *byte != 0)).then(|| text(guid)))
}

fn long(bytes: &[u8], place: usize) -> u64 {
    bytes[place..place + 8].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

fn int(bytes: &[u8], place: usize) -> u32 {
    bytes[place..place + 4].iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte))
}

/// The first three parts have their low bytes first.
fn text(guid: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (index, place) in ORDER.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", guid[*place]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with two entries, at block 2; the second is used, and begins at block 2048.
    fn disk(block: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&2_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        file.write_all_at(&header, block).unwrap();
        let mut entry = [0; 128];
        for (place, byte) in entry[16..32].iter_mut().zip(1..) {
            *place = byte;
        }
        entry[32..40].copy_from_slice(&2048_u64.to_le_bytes());
        file.write_all_at(&entry, 2 * block + 128).unwrap();
        file
    }

    #[test]
    fn the_guid_is_written_as_everybody_writes_it() {
        for block in [512, 4096] {
            let found = guid(&disk(block), block, 2, 2048 * block).unwrap();
            assert_eq!(found.as_deref(), Some("04030201-0605-0807-090a-0b0c0d0e0f10"), "{block}");
        }
    }

    #[test]
    fn what_a_system_has_for_itself_is_nobodys() {
        let disk = disk(512);
        // Microsoft reserved, as it lies there.
        let kind = [0x16, 0xe3, 0xc9, 0xe3, 0x5c, 0x0b, 0xb8, 0x4d, 0x81, 0x7d, 0xf9, 0x2d, 0xf0, 0x02, 0x15, 0xae];
        disk.write_all_at(&kind, 2 * 512 + 128).unwrap();
        assert_eq!(guid(&disk, 512, 2, 2048 * 512).unwrap(), None);
    }

    #[test]
    fn a_partition_that_is_not_in_the_table_has_none() {
        let disk = disk(512);
        for (number, start) in [(0, 0), (1, 0), (3, 0), (2, 4096)] {
            assert_eq!(guid(&disk, 512, number, start).unwrap(), None, "{number} at {start}");
        }
        let none = tempfile::tempfile().unwrap();
        none.set_len(1 << 20).unwrap();
        assert_eq!(guid(&none, 512, 1, 0).unwrap(), None);
        none.set_len(0).unwrap();
        assert!(guid(&none, 512, 1, 0).is_err());
    }
}
