//! Copying a file with its holes, in steps that are durable, beside others who use the disk.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use dunnage_driver_api::root::Attempt;
use dunnage_driver_api::{Bytes, Error, Result};
use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;

use crate::files::Files;
use crate::store::Extra;

/// How much is read and written at once.
const STEP: u64 = 4 << 20;
/// How far the copy goes until it is made durable, and the job says so: what a kill costs at the most.
const STRIDE: u64 = 128 << 20;

/// A file and its copy.
pub(crate) struct Copying<'a> {
    pub(crate) files: &'a Files,
    pub(crate) source: &'a File,
    /// As long as what is to be copied, and a hole behind what is done.
    pub(crate) copy: &'a File,
}

impl Copying<'_> {
    /// Copies from where the job is to its end.
    ///
    /// # Errors
    /// Where a file cannot be read or written, or the disk is about to be full.
    pub(crate) fn run(&self, attempt: &mut Attempt<'_, Extra>) -> Result<()> {
        let end = attempt.job.total.get();
        let length = self.source.metadata().map_err(|error| cannot_read(error, 0))?.len();
        if length < end {
            return Err(Error::internal(format!("what is copied has {length} bytes and not {end}: it was cut")));
        }
        // A file system with a server of its own may not know yet of what was written here, and tell of a hole.
        self.source.sync_all().map_err(|error| Error::io("cannot make durable what is copied", error))?;
        let (mut at, mut buffer) = (attempt.job.done.get(), vec![0; STEP as usize]);
        while at < end {
            attempt.reached(Bytes::new(at))?;
            let Some(data) = data_after(self.source, at)?.filter(|data| *data < end) else { break };
            let hole = hole_after(self.source, data)?.min(end);
            at = self.extent(attempt, data..hole, &mut buffer)?;
        }
        attempt.reached(Bytes::new(end))
    }

    /// Copies what has no holes.
    fn extent(&self, attempt: &mut Attempt<'_, Extra>, extent: Range<u64>, buffer: &mut [u8]) -> Result<u64> {
        let mut at = extent.start;
        while at < extent.end {
            attempt.reached(Bytes::new(at))?;
            let length = STEP.min(extent.end - at);
            // The disk reads what comes next while this is written.
            advise(self.source, at + length, STEP.min(extent.end - at - length), Advice::WillNeed);
            if let Err(error) = self.step(&mut buffer[..length as usize], at) {
                // What is done is not done again, where that can still be said.
                let _ = self.keep(attempt, at);
                return Err(error);
            }
            // It also begins to write what is not on the disk yet.
            self.forget(at, at + length);
            at += length;
            if at - attempt.job.done.get() >= STRIDE {
                self.keep(attempt, at)?;
            }
        }
        Ok(at)
    }

    fn step(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.refuse_full(buffer.len() as u64)?;
        self.source.read_exact_at(buffer, at).map_err(|error| cannot_read(error, at))?;
        self.copy
            .write_all_at(buffer, at)
            .map_err(|error| Error::io(format!("cannot write the copy at byte {at}"), error))
    }

    /// That the disk has room for this.
    fn refuse_full(&self, step: u64) -> Result<()> {
        let sizes = self.files.unfinished.sizes().map_err(self.files.unfinished.failed("measure", ""))?;
        sizes.refuse_last(Bytes::new(step))
    }

    /// Makes durable what was copied until `at`.
    fn keep(&self, attempt: &mut Attempt<'_, Extra>, at: u64) -> Result<()> {
        let failed = |error| Error::io("cannot make the copy durable", error);
        self.copy.sync_data().map_err(failed)?;
        self.forget(attempt.job.done.get(), at);
        attempt.job.done = Bytes::new(at);
        attempt.keep()
    }

    /// Gives the memory back that the kernel keeps of these bytes: nobody reads them soon, and others need it.
    pub(crate) fn forget(&self, from: u64, to: u64) {
        for file in [self.source, self.copy] {
            advise(file, from, to.saturating_sub(from), Advice::DontNeed);
        }
    }
}

/// No more than a hint: a file system that takes none copies all the same.
fn advise(file: &File, from: u64, length: u64, advice: Advice) {
    if let Some(length) = NonZeroU64::new(length) {
        let _ = rustix::fs::fadvise(file, from, Some(length), advice);
    }
}

/// Where the next data begins, if there is any.
fn data_after(file: &File, at: u64) -> Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows nothing of holes.
        Err(Errno::INVAL) => Ok(Some(at)),
        Err(error) => Err(cannot_read(error.into(), at)),
    }
}

/// Where the data ends that is at `at`.
fn hole_after(file: &File, at: u64) -> Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(at)) {
        Err(Errno::INVAL) => Ok(u64::MAX),
        found => found.map_err(|error| cannot_read(error.into(), at)),
    }
}

fn cannot_read(error: io::Error, at: u64) -> Error {
    Error::io(format!("cannot read what is copied at byte {at} or behind it"), error)
}
