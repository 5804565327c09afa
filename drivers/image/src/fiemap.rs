//! Where the bytes of a file lie in its file system.

mod ioctl;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use linux_raw_sys::ioctl::{
    FIEMAP_EXTENT_DATA_ENCRYPTED, FIEMAP_EXTENT_DATA_INLINE, FIEMAP_EXTENT_DATA_TAIL, FIEMAP_EXTENT_DELALLOC,
    FIEMAP_EXTENT_ENCODED, FIEMAP_EXTENT_NOT_ALIGNED, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN,
};
use rustix::fs::FsWord;

/// The place of such an extent says nothing of its bytes: it has none yet, shares its block with others, or is that of a
/// compressed extent as a whole, of which two files may show different parts.
const PLACELESS: u32 = FIEMAP_EXTENT_UNKNOWN
    | FIEMAP_EXTENT_DELALLOC
    | FIEMAP_EXTENT_ENCODED
    | FIEMAP_EXTENT_DATA_ENCRYPTED
    | FIEMAP_EXTENT_NOT_ALIGNED
    | FIEMAP_EXTENT_DATA_INLINE
    | FIEMAP_EXTENT_DATA_TAIL;

/// Whether bytes of one place are the same bytes in this file system. Some have several devices with places of the same
/// numbers. The files of an image and of its copies are on one device of XFS, since only such share blocks; and btrfs
/// numbers its devices through.
pub(crate) fn is_trusted(file: impl AsFd) -> bool {
    const XFS: FsWord = 0x5846_5342;
    const BTRFS: FsWord = 0x9123_683e;
    rustix::fs::fstatfs(file).is_ok_and(|seen| [XFS, BTRFS].contains(&seen.f_type))
}

/// What is known of the bytes of a range without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// They read zero: a hole, or blocks that were never written.
    Zero,
    /// They lie in this place, and are the bytes of every other range that does.
    At(u64),
    /// They have to be read.
    Unknown,
}

/// A range of a file whose bytes are of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<u64>,
    pub(crate) content: Content,
}

/// The parts of a file from a byte on, without a gap, to an end that may lie beyond that of the file: there all is zero.
pub(crate) struct Map {
    file: File,
    length: u64,
    end: u64,
    /// Up to where it is known.
    known: u64,
    parts: VecDeque<Part>,
}

impl Map {
    /// The first `length` bytes of a file and zeros behind them, from the byte `from` to `end`.
    pub(crate) fn new(file: File, length: u64, from: u64, end: u64) -> Self {
        Self { file, length: length.min(end), end, known: from, parts: VecDeque::new() }
    }

    /// The next part, or `None` at the end.
    ///
    /// # Errors
    /// As ioctl_fiemap(2).
    pub(crate) fn next(&mut self) -> io::Result<Option<&Part>> {
        if self.parts.is_empty() && self.known < self.end {
            self.fill()?;
        }
        Ok(self.parts.front())
    }

    /// Goes on to this byte, which lies in the next part or at the end of it.
    pub(crate) fn go_to(&mut self, byte: u64) {
        let Some(part) = self.parts.front_mut() else { return };
        if let Content::At(place) = &mut part.content {
            *place += byte - part.range.start;
        }
        part.range.start = byte;
        if part.range.is_empty() {
            self.parts.pop_front();
        }
    }

    /// Reads the bytes from `offset` on.
    ///
    /// # Errors
    /// As pread(2).
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let there = usize::try_from(self.length.saturating_sub(offset)).map_or(buffer.len(), |it| it.min(buffer.len()));
        let (mut rest, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        let mut at = offset;
        while !rest.is_empty() {
            match self.file.read_at(rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(count) => {
                    rest = &mut rest[count..];
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.known >= self.length {
            self.add(self.end, Content::Zero);
            return Ok(());
        }
        let before = self.known;
        let extents = ioctl::extents(&self.file, &(self.known..self.length))?;
        // Not the flag of the last extent ends it: some set that for the last one of the range.
        if extents.is_empty() {
            self.add(self.length, Content::Zero);
            return Ok(());
        }
        for extent in extents {
            let end = extent.logical.saturating_add(extent.length).min(self.length);
            self.add(extent.logical.min(self.length), Content::Zero);
            // The part of it that was known already, or is behind the place where it was asked to begin.
            let skipped = self.known.saturating_sub(extent.logical);
            self.add(
                end,
                match extent.flags {
                    flags if flags & PLACELESS != 0 => Content::Unknown,
                    flags if flags & FIEMAP_EXTENT_UNWRITTEN != 0 => Content::Zero,
                    _ => Content::At(extent.physical.saturating_add(skipped)),
                },
            );
        }
        if self.known == before {
            return Err(io::Error::other("FIEMAP names extents that were not asked for"));
        }
        Ok(())
    }

    /// What is not known yet up to `end` is this.
    fn add(&mut self, end: u64, content: Content) {
        if self.known < end {
            self.parts.push_back(Part { range: self.known..end, content });
            self.known = end;
        }
    }
}
