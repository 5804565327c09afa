//! Which bytes of a snapshot hold data, and which differ from those of another: what two files share is equal, and only
//! of what has no place of its own the bytes are read.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use dunnage_driver_api::{BlockRanges, ChangedBlocks, Context, Error, Result, Snapshot};

use crate::fiemap::{Content, Map};
use crate::store::Store;

/// How long a page may take before it is given out as it is.
const TURN: Duration = Duration::from_secs(1);
/// How much is read at once: whole blocks.
const STRIDE: u64 = 1 << 20;
/// In units of this what was read is compared.
const BLOCK: u64 = 4096;

impl ChangedBlocks for Store {
    fn allocated(&self, _: &Context, snapshot: &Snapshot, from: u64) -> Result<Box<dyn BlockRanges>> {
        let target = self.map(snapshot, from, snapshot.size.get())?;
        Ok(Box::new(Differences { base: None, target, found: VecDeque::new() }))
    }

    fn changed(&self, _: &Context, base: &Snapshot, target: &Snapshot, from: u64) -> Result<Box<dyn BlockRanges>> {
        let end = target.size.get();
        let (base, target) = (self.map(base, from, end)?, self.map(target, from, end)?);
        Ok(Box::new(Differences { base: Some(base), target, found: VecDeque::new() }))
    }
}

impl Store {
    fn map(&self, snapshot: &Snapshot, from: u64, end: u64) -> Result<Map> {
        let key = snapshot.key.as_str();
        let file = self.open_snapshot(key).map_err(self.snapshots.failed("open the snapshot", key))?;
        Ok(Map::new(file, snapshot.size.get(), from, end))
    }
}

/// What of `target` is not as in `base`, or, without one, is not zero.
struct Differences {
    base: Option<Map>,
    target: Map,
    /// In order; what is found next may belong to the last of them.
    found: VecDeque<Range<u64>>,
}

impl BlockRanges for Differences {
    fn next(&mut self, _: &Context, limit: usize) -> Result<Option<Vec<Range<u64>>>> {
        let started = Instant::now();
        let mut has_ended = false;
        while self.found.len() <= limit && started.elapsed() < TURN && !has_ended {
            has_ended = !self.step()?;
        }
        let whole = if has_ended { self.found.len() } else { self.found.len().saturating_sub(1) };
        let page: Vec<_> = self.found.drain(..whole.min(limit)).collect();
        Ok((!page.is_empty() || !has_ended).then_some(page))
    }
}

impl Differences {
    /// Looks at what comes next; `false` at the end.
    fn step(&mut self) -> Result<bool> {
        let failed = |error| Error::io("cannot find out where the bytes of a snapshot lie", error);
        let Some(target) = self.target.next().map_err(failed)?.cloned() else { return Ok(false) };
        let Some(map) = &mut self.base else {
            self.target.go_to(target.range.end);
            if target.content != Content::Zero {
                self.add(target.range);
            }
            return Ok(true);
        };
        // Both maps have the same end, and go on together.
        let Some(base) = map.next().map_err(failed)?.cloned() else { return Ok(false) };
        let mut range = target.range.start..target.range.end.min(base.range.end);
        match (base.content, target.content) {
            (Content::Unknown, _) | (_, Content::Unknown) => {
                range.end = range.end.min(after(range.start, STRIDE));
                self.compare(&range)?;
            }
            (base, target) if base == target => {}
            _ => self.add(range.clone()),
        }
        self.target.go_to(range.end);
        if let Some(base) = &mut self.base {
            base.go_to(range.end);
        }
        Ok(true)
    }

    /// Reads both and adds what differs.
    fn compare(&mut self, range: &Range<u64>) -> Result<()> {
        let length = (range.end - range.start) as usize;
        let (mut old, mut new) = (vec![0; length], vec![0; length]);
        let read = |map: &Map, buffer: &mut [u8]| {
            map.read(buffer, range.start).map_err(|error| Error::io("cannot read a snapshot", error))
        };
        read(&self.target, &mut new)?;
        if let Some(base) = &self.base {
            read(base, &mut old)?;
        }
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(after(start, BLOCK));
            let block = (start - range.start) as usize..(end - range.start) as usize;
            if old[block.clone()] != new[block] {
                self.add(start..end);
            }
            start = end;
        }
        Ok(())
    }

    fn add(&mut self, range: Range<u64>) {
        match self.found.back_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.found.push_back(range),
        }
    }
}

/// The first multiple of `unit` behind `byte`.
fn after(byte: u64, unit: u64) -> u64 {
    (byte / unit + 1) * unit
}
