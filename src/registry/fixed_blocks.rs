//! Ranges told as blocks of one size (FIXED_LENGTH of CSI).

use std::collections::VecDeque;
use std::ops::Range;

use dunnage_driver_api::Bytes;

use crate::config::BlockSize;

/// What devices have for a block at the least.
const SECTOR: u64 = 512;

/// Blocks that ranges touch. As many of them as a range has are made when they are taken, and not before: one range may
/// be a whole disk.
pub(super) struct FixedBlocks {
    size: u64,
    /// Where blocks are that were not taken yet: in order, disjoint, of whole blocks.
    waiting: VecDeque<Range<u64>>,
    /// Behind the last block that was ever added.
    added: u64,
}

impl FixedBlocks {
    /// Blocks of the size that is wanted, or of the largest below it of which the snapshot has a whole number: no block
    /// ends beyond its end, and none is smaller than the others. `None` where not even sectors fit.
    pub(super) fn new(wanted: BlockSize, capacity: Bytes) -> Option<Self> {
        let whole = match capacity.get() {
            0 => wanted.get(),
            bytes => 1 << bytes.trailing_zeros(),
        };
        let size = wanted.get().min(whole);
        (size >= SECTOR).then(|| Self { size, waiting: VecDeque::new(), added: 0 })
    }

    /// Adds what these touch: ranges that begin where those before them end, or later.
    pub(super) fn add(&mut self, ranges: &[Range<u64>]) {
        for range in ranges {
            let start = (range.start / self.size * self.size).max(self.added);
            let end = range.end.next_multiple_of(self.size);
            match self.waiting.back_mut() {
                Some(last) if last.end == start => last.end = end.max(start),
                _ if start < end => self.waiting.push_back(start..end),
                _ => {}
            }
            self.added = self.added.max(end);
        }
    }

    /// Whether no block waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next blocks, at most `limit`.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Range<u64>> {
        let mut blocks = Vec::new();
        while let Some(first) = self.waiting.front_mut().filter(|_| blocks.len() < limit) {
            blocks.push(first.start..first.start + self.size);
            first.start += self.size;
            if first.is_empty() {
                self.waiting.pop_front();
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn blocks(wanted: u64, capacity: u64) -> Option<FixedBlocks> {
        FixedBlocks::new(BlockSize::try_from(Bytes::new(wanted)).unwrap(), Bytes::new(capacity))
    }

    #[test]
    fn a_snapshot_has_a_whole_number_of_blocks() {
        let size = |wanted, capacity| blocks(wanted, capacity).map(|blocks| blocks.size);
        assert_eq!(size(1 << 20, 1 << 30), Some(1 << 20));
        assert_eq!(size(1 << 20, (1 << 30) + 4096), Some(4096));
        assert_eq!(size(4096, (1 << 30) + 512), Some(512));
        assert_eq!(size(4096, 0), Some(4096));
        assert_eq!(size(4096, 100), None);
    }

    #[test]
    fn a_range_of_a_whole_disk_takes_no_memory() {
        let end = 1 << 60;
        let mut blocks = blocks(512, end).unwrap();
        blocks.add(std::slice::from_ref(&(0..end)));
        assert_eq!(blocks.take(2), [0..512, 512..1024]);
        assert!(!blocks.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_taken_are_the_blocks_that_the_ranges_touch_each_once_in_order(
            exponent in 9_u32..13,
            gaps in prop::collection::vec((0_u64..9000, 1_u64..9000), 0..40),
            pages in prop::collection::vec((1_usize..5, 1_usize..7), 1..60),
        ) {
            let size = 1_u64 << exponent;
            let mut ranges = Vec::new();
            let mut end = 0;
            for (gap, length) in gaps {
                ranges.push(end + gap..end + gap + length);
                end += gap + length;
            }
            let mut told = blocks(size, end.next_multiple_of(size)).unwrap();
            prop_assert_eq!(told.size, size);
            // Read in pages of any length, each taken in pages of any other.
            let (mut left, mut taken) = (&ranges[..], Vec::new());
            for (read, limit) in pages.into_iter().cycle().take(10_000) {
                if told.is_empty() {
                    let (page, rest) = left.split_at(read.min(left.len()));
                    told.add(page);
                    left = rest;
                }
                let page = told.take(limit);
                prop_assert!(page.len() <= limit);
                taken.extend(page);
                if left.is_empty() && told.is_empty() {
                    break;
                }
            }
            let wanted: BTreeSet<u64> =
                ranges.iter().flat_map(|range| range.clone().map(|byte| byte / size)).collect();
            let wanted: Vec<_> = wanted.into_iter().map(|number| number * size..(number + 1) * size).collect();
            prop_assert_eq!(taken, wanted);
        }
    }
}
