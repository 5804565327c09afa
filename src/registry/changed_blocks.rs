//! The rules over what a driver tells of the blocks of its snapshots.

use std::ops::Range;

use dunnage_driver_api::{BlockRanges, Bytes, Context, Error, ErrorKind, Result, Snapshot, SnapshotId};

use super::backend::ServedBackend;
use super::fixed_blocks::FixedBlocks;
use super::volumes::unsupported;

/// Ranges of a snapshot that are being told, and how far that is.
pub struct Blocks {
    base: Option<SnapshotId>,
    target: SnapshotId,
    ranges: Box<dyn BlockRanges>,
    capacity: Bytes,
    /// What comes next of the driver lies behind this byte.
    told: u64,
    /// Where all are told as blocks of one size.
    fixed: Option<FixedBlocks>,
}

impl Blocks {
    /// The snapshot they are of.
    pub fn target(&self) -> &SnapshotId {
        &self.target
    }

    /// The size of that snapshot.
    pub fn capacity(&self) -> Bytes {
        self.capacity
    }

    /// Whether all ranges have one size.
    pub fn are_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Whether the driver kept what it promises of a page, and how far it is then.
    fn check(&self, page: &[Range<u64>], limit: usize) -> Option<u64> {
        let told = page.iter().try_fold(self.told, |told, range| {
            (told <= range.start && range.start < range.end && range.end <= self.capacity.get()).then_some(range.end)
        });
        told.filter(|_| page.len() <= limit)
    }
}

impl ServedBackend {
    /// Begins to tell, from the byte `from` on, which blocks of `target` are not as in `base`, or, without a base, which
    /// hold data. Both lie in this instance.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where a snapshot does not exist, [`ErrorKind::FailedPrecondition`] where it is not ready,
    /// [`ErrorKind::InvalidArgument`] where two are not of one volume, [`ErrorKind::OutOfRange`] where `from` lies beyond
    /// the end.
    pub fn blocks(&self, cx: &Context, base: Option<SnapshotId>, target: SnapshotId, from: u64) -> Result<Blocks> {
        let changed_blocks = self.backend.changed_blocks.as_deref();
        let changed_blocks = changed_blocks.ok_or_else(|| unsupported("does not tell which blocks have changed"))?;
        let old = base.as_ref().map(|base| self.readable(cx, base)).transpose()?;
        let new = self.readable(cx, &target)?;
        if let Some(old) = &old
            && old.source != new.source
        {
            return Err(Error::invalid(format!(
                "base_snapshot_id is a snapshot of volume {} and target_snapshot_id of {}: name two of one volume",
                old.source, new.source
            )));
        }
        if from > new.size.get() {
            let size = new.size.get();
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("starting_offset {from} lies beyond the end: the snapshot has {size} bytes"),
            ));
        }
        let ranges = match &old {
            Some(old) => changed_blocks.changed(cx, old, &new, from)?,
            None => changed_blocks.allocated(cx, &new, from)?,
        };
        let fixed = self.changed_block_size.and_then(|size| FixedBlocks::new(size, new.size));
        Ok(Blocks { base, target, ranges, capacity: new.size, told: from, fixed })
    }

    /// At most `limit` further ranges, or `None` where there are no more. None at all, and more to come, is no error.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where a snapshot was deleted meanwhile: what its blocks were then is not known.
    pub fn next_blocks(&self, cx: &Context, blocks: &mut Blocks, limit: usize) -> Result<Option<Vec<Range<u64>>>> {
        let waiting = blocks.fixed.as_mut().filter(|fixed| !fixed.is_empty()).map(|fixed| fixed.take(limit));
        let page = match waiting {
            Some(page) => Some(page),
            None => self.page(cx, blocks, limit)?,
        };
        // After it: the snapshot may have gone while it was looked at.
        for id in blocks.base.iter().chain([&blocks.target]) {
            self.readable(cx, id)?;
        }
        Ok(page)
    }

    /// One that the driver tells.
    fn page(&self, cx: &Context, blocks: &mut Blocks, limit: usize) -> Result<Option<Vec<Range<u64>>>> {
        let Some(page) = blocks.ranges.next(cx, limit)? else { return Ok(None) };
        blocks.told = blocks.check(&page, limit).ok_or_else(|| {
            let what = "the driver told of blocks that are out of order, out of the snapshot, or too many at once";
            Error::internal(what).with("backend", &self.name)
        })?;
        Ok(Some(match &mut blocks.fixed {
            Some(fixed) => {
                fixed.add(&page);
                fixed.take(limit)
            }
            None => page,
        }))
    }

    /// A snapshot whose bytes are all there.
    fn readable(&self, cx: &Context, id: &SnapshotId) -> Result<Snapshot> {
        let snapshot = self.snapshot(cx, id)?;
        if self.snapshots()?.is_half_deleted(cx, &snapshot)? {
            return Err(Error::not_found("this snapshot is being deleted").with("snapshot", id));
        }
        if !snapshot.ready {
            let error = Error::precondition("the snapshot is still being copied: wait until it is ready to use");
            return Err(error.with("snapshot", id).retry(true));
        }
        Ok(snapshot)
    }
}
