//! The marks by which what is on a device is known, and the parts of a device where such marks live.

/// How much of the beginning is looked at: every format below has its mark there, and so have those that are not named.
pub(super) const HEAD: u64 = (1 << 20) + (64 << 10);
/// How much of the end: RAID members and partition tables have theirs there, ZFS two of its four labels.
pub(super) const TAIL: u64 = 512 << 10;
/// Single blocks between them that hold a second copy of a superblock: btrfs at 64 MiB, ext4 with blocks of 4 KiB at
/// 128 MiB.
pub(super) const BETWEEN: [u64; 2] = [64 << 20, 128 << 20];
/// How much is looked at there.
pub(super) const BLOCK: u64 = 4 << 10;

/// Something that occupies a device and is no file system of ours.
pub(super) struct Signature {
    /// What an admin calls it.
    pub(super) name: &'static str,
    offset: usize,
    magic: &'static [u8],
}

const fn at(offset: usize, magic: &'static [u8], name: &'static str) -> Signature {
    Signature { name, offset, magic }
}

/// What may have a file system, or remains of one, inside: these are looked for before file systems are.
const CONTAINERS: &[Signature] = &[
    at(0, b"LUKS\xba\xbe", "a LUKS volume"),
    at(0x4000, b"SKUL\xba\xbe", "a LUKS volume"),
    at(0, b"LABELONE", "an LVM physical volume"),
    at(512, b"LABELONE", "an LVM physical volume"),
    at(1024, b"LABELONE", "an LVM physical volume"),
    at(1536, b"LABELONE", "an LVM physical volume"),
    at(0, b"\xfc\x4e\x2b\xa9", "a member of an md RAID"),
    at(4096, b"\xfc\x4e\x2b\xa9", "a member of an md RAID"),
    at(0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "a bcache or bcachefs device"),
    at(0, b"dmvdo001", "a VDO device"),
    at(0, b"bluestore block device", "a Ceph OSD"),
    at(512, b"EFI PART", "a GPT partition table"),
    at(4096, b"EFI PART", "a GPT partition table"),
    at(4086, b"SWAPSPACE2", "swap space"),
    at(65526, b"SWAPSPACE2", "swap space"),
];

/// Other file systems, and last the mark that many of them share with a partition table.
const OTHERS: &[Signature] = &[
    at(0, b"hsqs", "a squashfs file system"),
    at(0x8001, b"CD001", "an ISO 9660 file system"),
    at(0x8001, b"BEA01", "a UDF file system"),
    at(3, b"NTFS    ", "an NTFS file system"),
    at(3, b"EXFAT   ", "an exFAT file system"),
    at(0x36, b"FAT", "a FAT file system"),
    at(0x52, b"FAT32", "a FAT file system"),
    at(0x400, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    at(0x400, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    at(0x406, b"\x34\x34", "a NILFS2 file system"),
    at(0x8000, b"JFS1", "a JFS file system"),
    at(0x10034, b"ReIsEr", "a ReiserFS file system"),
    at(0x10000, b"\x01\x16\x19\x70", "a GFS2 file system"),
    at(0x100000, b"\x0d\xd0\x01\xc0", "a VMFS file system"),
    at(510, b"\x55\xaa", "an MBR partition table or a boot sector"),
];

/// The mark of something that may have a file system inside.
pub(super) fn container(head: &[u8]) -> Option<&'static str> {
    find(CONTAINERS, head)
}

/// The mark of a file system that is not one of ours.
pub(super) fn other(head: &[u8]) -> Option<&'static str> {
    find(OTHERS, head)
}

fn find(signatures: &[Signature], head: &[u8]) -> Option<&'static str> {
    let matches =
        |signature: &&Signature| head.get(signature.offset..).is_some_and(|bytes| bytes.starts_with(signature.magic));
    signatures.iter().find(matches).map(|signature| signature.name)
}

/// The mark of a RAID member that has it at the end: of `tail`, the last bytes of a device of `size`.
pub(super) fn raid_at_end(tail: &[u8], size: u64) -> Option<&'static str> {
    let magic = |position: u64, bytes: [u8; 4]| {
        let start = size.checked_sub(tail.len() as u64)?;
        let offset = usize::try_from(position.checked_sub(start)?).ok()?;
        tail.get(offset..).is_some_and(|found| found.starts_with(&bytes)).then_some("a member of an md RAID")
    };
    let form_1_0 = (size / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    let form_0_90 = (size & !0xFFFF).checked_sub(0x10000);
    [form_1_0, form_0_90].into_iter().flatten().find_map(|position| magic(position, [0xfc, 0x4e, 0x2b, 0xa9]))
}
