//! The GUID of a partition, as the partition table of its disk says it: older kernels do not tell it, and a link that udev
//! would have to make may be missing or old.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The one type that a partition is handed out with, Linux filesystem data. Others belong to a firmware or to a system, though
/// they may be empty.
const DATA: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
/// The most entries that are read: no tool makes more than 128.
const MOST: u32 = 1024;

/// The GUID of partition `number`, which begins at this byte, on a disk with logical blocks of `block` bytes; `None` where the
/// disk has no GPT that is whole, or its GPT has no such partition there, or one of another type than Linux filesystem data,
/// or two with one GUID.
///
/// # Errors
/// Where the disk cannot be read.
pub(crate) fn guid(disk: &File, block: u64, number: u32, start: u64) -> io::Result<Option<String>> {
    let mut header = [0; 92];
    disk.read_exact_at(&mut header, block)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    // Longer ones are of a later version, which may mean something else.
    if int(&header, 12) as usize != header.len() || int(&header, 16) != checksum(&without_checksum(header)) {
        return Ok(None);
    }
    let (entries, count, size) = (long(&header, 72), int(&header, 80), int(&header, 84));
    // The specification wants 128 times a power of two; what is larger than a block is no table that anybody makes.
    if number == 0 || number > count || count > MOST || !(128..=4096).contains(&size) {
        return Ok(None);
    }
    let Some(place) = entries.checked_mul(block) else { return Ok(None) };
    let mut table = vec![0; count as usize * size as usize];
    disk.read_exact_at(&mut table, place)?;
    if checksum(&table) != int(&header, 88) {
        return Ok(None);
    }
    let entry = |index: u32| &table[(index * size) as usize..][..128];
    let own = entry(number - 1);
    let guid = &own[16..32];
    let is_there = long(own, 32).checked_mul(block) == Some(start) && guid.iter().any(|byte| *byte != 0);
    let is_alone = (0..count).filter(|index| entry(*index)[16..32] == *guid).count() == 1;
    Ok((is_there && is_alone && text(&own[..16]) == DATA).then(|| text(guid)))
}

fn without_checksum(mut header: [u8; 92]) -> [u8; 92] {
    header[16..20].fill(0);
    header
}

/// CRC-32, as Ethernet has it.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
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
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
        ]);
        for (place, byte) in entry[16..32].iter_mut().zip(1..) {
            *place = byte;
        }
        entry[32..40].copy_from_slice(&2048_u64.to_le_bytes());
        file.write_all_at(&entry, 2 * block + 128).unwrap();
        seal(&file, block);
        file
    }

    /// Writes the checksums of such a table.
    fn seal(disk: &File, block: u64) {
        let (mut header, mut table) = ([0; 92], [0; 256]);
        disk.read_exact_at(&mut header, block).unwrap();
        disk.read_exact_at(&mut table, 2 * block).unwrap();
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[88..92].copy_from_slice(&checksum(&table).to_le_bytes());
        let sum = checksum(&without_checksum(header));
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk.write_all_at(&header, block).unwrap();
    }

    #[test]
    fn a_table_that_is_not_whole_has_no_partition() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        for place in [512 + 40, 2 * 512, 2 * 512 + 128 + 56] {
            let disk = disk(512);
            disk.write_all_at(&[1], place).unwrap();
            assert_eq!(guid(&disk, 512, 2, 2048 * 512).unwrap(), None, "{place}");
        }
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
        assert!(guid(&disk, 512, 2, 2048 * 512).unwrap().is_some());
        // Any other type than Linux filesystem data.
        disk.write_all_at(&[0x16], 2 * 512 + 128).unwrap();
        seal(&disk, 512);
        assert_eq!(guid(&disk, 512, 2, 2048 * 512).unwrap(), None);
    }

    #[test]
    fn two_partitions_with_one_guid_have_none() {
        let disk = disk(512);
        let mut entry = [0; 128];
        disk.read_exact_at(&mut entry, 2 * 512 + 128).unwrap();
        disk.write_all_at(&entry, 2 * 512).unwrap();
        seal(&disk, 512);
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
