//! Which bytes of a snapshot hold data, and which differ from those of another.

use std::ops::Range;

use crate::context::Context;
use crate::error::Result;
use crate::snapshot::Snapshot;

/// Telling which bytes of a snapshot hold data, and which differ between two (CSI SNAPSHOT_METADATA_SERVICE), at a cost
/// that does not grow with the size of the volume. For a backend with [`Snapshots`](crate::Snapshots) that are block
/// devices, or can be read as such.
///
/// No byte that holds data, or that differs, may be left out. One may be named needlessly, best only where it was written
/// anew with what it held before.
pub trait ChangedBlocks: Send + Sync {
    /// Begins to tell from the byte `from` on what of `snapshot` was ever written and not given back since. All that is
    /// not named reads zero.
    ///
    /// # Errors
    /// Whenever the store could not be read.
    fn allocated(&self, cx: &Context, snapshot: &Snapshot, from: u64) -> Result<Box<dyn BlockRanges>>;

    /// Begins to tell from the byte `from` on what of `target` is not as in `base`, given back bytes included. Both are
    /// snapshots of one volume, and `base` may be the smaller one: what lies beyond its end was zero. It may also be the
    /// later one.
    ///
    /// # Errors
    /// Whenever the store could not be read. [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where the
    /// storage does not know: the client then reads the whole snapshot.
    fn changed(&self, cx: &Context, base: &Snapshot, target: &Snapshot, from: u64) -> Result<Box<dyn BlockRanges>>;
}

/// Ranges of bytes, told page by page: between two pages lies as long as the client takes, on any thread, and the last
/// page may never be asked for. So it may hold a file open, or a program's output, and no lock.
pub trait BlockRanges: Send {
    /// The next ranges, at most `limit`: none empty, in ascending order, without overlap, none that ends before the byte
    /// it all began from, and none beyond the end of the snapshot. `None` where there are no more. None at all, and more
    /// to come, is a good answer where otherwise a page would take longer than a few seconds.
    ///
    /// The host looks after each page whether the snapshots are still there, and gives nothing out otherwise.
    ///
    /// # Errors
    /// Whenever the store could not be read. Nothing is asked for after that.
    fn next(&mut self, cx: &Context, limit: usize) -> Result<Option<Vec<Range<u64>>>>;
}
