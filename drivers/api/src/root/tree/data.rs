//! The data of a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::{Errno, retry_on_intr};

use super::{Copier, Failed, to};

/// How much is copied by this process itself at once. Less than that costs less so than by the kernel.
pub(super) const PIECE: usize = 128 << 10;
/// How much the kernel is asked to copy at once: a stop waits for no more.
const CHUNK: u64 = 16 << 20;
/// The same of a server: what every one does before it answers.
const CHUNK_OVER_NETWORK: u64 = 512 << 10;

impl Copier<'_> {
    /// Has an empty file hold what the other holds, of this size when it was looked at.
    pub(super) fn data(&mut self, source: &File, copy: &File, size: u64) -> Result<(), Failed> {
        if size == 0 || self.share(source, copy, size) {
            return Ok(());
        }
        let mut at = 0;
        while at < size {
            let data = match seek(source, SeekFrom::Data(at)) {
                Ok(data) => data,
                // Holes to the end.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(to("look for holes in")(error)),
            };
            let hole = seek(source, SeekFrom::Hole(data)).or_else(|error| match error {
                // It was cut in the meantime.
                Errno::NXIO => Ok(data),
                error => Err(error),
            });
            let end = hole.map_err(to("look for holes in"))?.min(size);
            if data >= end {
                break;
            }
            at = self.range(source, copy, data, end)?;
            if at < end {
                break;
            }
        }
        let end = rustix::fs::fstat(source).map_err(to("look at"))?.st_size.cast_unsigned().min(size);
        if at < end {
            copy.set_len(end).map_err(to("write the copy of"))?;
        }
        Ok(())
    }

    /// Shares the blocks of a file, where that can be.
    fn share(&mut self, source: &File, copy: &File, size: u64) -> bool {
        if !self.shares {
            return false;
        }
        match retry_on_intr(|| ioctl_ficlone(copy, source)) {
            Ok(()) => {
                self.copied.bytes += size;
                return true;
            }
            // No file of this file system can.
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV) => self.shares = false,
            // Whatever it is of this one: to copy it says whether that is in the way of it too.
            Err(_) => {}
        }
        false
    }

    /// Copies a range, as far as there is data; answers where it ended.
    fn range(&mut self, source: &File, copy: &File, start: u64, end: u64) -> Result<u64, Failed> {
        let mut at = start;
        while at < end {
            self.between_steps()?;
            let chunk = if self.over_network { CHUNK_OVER_NETWORK } else { CHUNK };
            let copied = if self.ranges && end - at > PIECE as u64 {
                self.by_the_kernel(source, copy, at, (end - at).min(chunk))
            } else {
                None
            };
            let copied = match copied {
                Some(copied) => copied,
                None => self.by_hand(source, copy, at, (end - at).min(PIECE as u64))?,
            };
            if copied == 0 {
                break;
            }
            self.copied.bytes += copied;
            at += copied;
        }
        Ok(at)
    }

    /// Nothing where the kernel does not do it, for whatever reason: to copy by hand then says what is in the way.
    fn by_the_kernel(&mut self, source: &File, copy: &File, at: u64, length: u64) -> Option<u64> {
        let (mut from, mut into) = (at, at);
        match retry_on_intr(|| copy_file_range(source, Some(&mut from), copy, Some(&mut into), length as usize)) {
            Ok(copied) => return Some(copied as u64),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => self.ranges = false,
            Err(_) => {}
        }
        None
    }

    fn by_hand(&mut self, source: &File, copy: &File, at: u64, length: u64) -> Result<u64, Failed> {
        let piece = &mut self.buffer[..length as usize];
        let read = loop {
            match source.read_at(piece, at) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(to("read"))?,
            }
        };
        copy.write_all_at(&piece[..read], at).map_err(to("write the copy of"))?;
        Ok(read as u64)
    }
}
