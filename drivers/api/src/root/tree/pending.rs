//! Files whose data was copied and may not be on the disk yet: none of them counts as whole before it is.
//!
//! The error of a write that the kernel does later is told once, to who asks then. Whoever asks after that, as the next
//! attempt does, is told of none, and finds a file of the right size without its data. So it is not by its size that a
//! file is known to be whole, but by the mode and times that it gets here.

use std::fs::File;

use rustix::fs::{Stat, Timestamps, fstat, syncfs};

use super::attributes::{At, times_of};
use super::{Copier, Failed, to};

/// How many files wait at the most: each is open, and a kill costs no more.
const FILES: usize = 64;
/// How much data waits before it is written out.
const BYTES: u64 = 128 << 20;

/// A copy that has everything but the mode and times of its original.
struct Pending {
    copy: File,
    inode: u64,
    mode: u32,
    times: Timestamps,
}

/// Those of one copy of a tree.
#[derive(Default)]
pub(super) struct Unsettled {
    files: Vec<Pending>,
    /// How much was copied when the last ones were settled.
    bytes: u64,
}

impl Copier<'_> {
    /// Has a file count as whole as soon as it is durable.
    pub(super) fn finish_later(&mut self, copy: File, original: &Stat) -> Result<(), Failed> {
        let inode = fstat(&copy).map_err(to("look at the copy of"))?.st_ino;
        self.unsettled.files.push(Pending { copy, inode, mode: original.st_mode, times: times_of(original) });
        let is_enough = self.unsettled.files.len() >= FILES || self.copied.bytes - self.unsettled.bytes >= BYTES;
        if self.over_network || is_enough { self.settle() } else { Ok(()) }
    }

    /// Makes durable what waits for it, and tells that it is whole.
    pub(super) fn settle(&mut self) -> Result<(), Failed> {
        let files = std::mem::take(&mut self.unsettled.files);
        if files.is_empty() {
            return Ok(());
        }
        if self.over_network {
            // A server is asked for this file alone.
            files.iter().try_for_each(|file| file.copy.sync_data()).map_err(to("sync the copy of"))?;
        } else {
            syncfs(self.synced).map_err(to("sync the copy of"))?;
        }
        self.unsettled.bytes = self.copied.bytes;
        files.iter().try_for_each(|file| self.finish(At::File(&file.copy), file.mode, &file.times))
    }

    /// Whether this file waits to be whole.
    pub(super) fn is_unsettled(&self, inode: u64) -> bool {
        self.unsettled.files.iter().any(|file| file.inode == inode)
    }
}
