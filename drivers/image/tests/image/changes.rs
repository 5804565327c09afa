//! What is told of the blocks of snapshots, against their bytes.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::slice;

use dunnage_driver_api::{BlockRanges, ChangedBlocks, FsType, Snapshot};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rustix::fs::FallocateFlags;

use crate::copies::{Copying, roots};
use crate::support::{Calls, MIB, Root, cx, is_root, run};

const BLOCK: u64 = 4096;
/// The size of the volumes at first.
const SIZE: u64 = 4 * MIB;

/// What a loop device has done to an image, and an admin.
#[derive(Debug, Clone)]
enum Step {
    /// At any byte; some bytes are those that are there.
    Write {
        offset: u64,
        length: usize,
        byte: u8,
    },
    Rewrite {
        block: u64,
        blocks: u64,
    },
    Punch {
        block: u64,
        blocks: u64,
    },
    Zero {
        block: u64,
        blocks: u64,
    },
    Allocate {
        block: u64,
        blocks: u64,
    },
    Grow {
        by: u64,
    },
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let blocks = || (0..SIZE / BLOCK, prop_oneof![1_u64..8, 1_u64..200]);
    prop_oneof![
        4 => (0..SIZE, prop_oneof![1_usize..20_000, 1_usize..400_000], 0_u8..3)
            .prop_map(|(offset, length, byte)| Step::Write { offset, length, byte }),
        2 => blocks().prop_map(|(block, blocks)| Step::Rewrite { block, blocks }),
        2 => blocks().prop_map(|(block, blocks)| Step::Punch { block, blocks }),
        1 => blocks().prop_map(|(block, blocks)| Step::Zero { block, blocks }),
        1 => blocks().prop_map(|(block, blocks)| Step::Allocate { block, blocks }),
        1 => (1_u64..100).prop_map(|by| Step::Grow { by: by * BLOCK }),
        3 => Just(Step::Snapshot),
    ]
}

/// A snapshot with what it must be told to hold.
struct Cut {
    snapshot: Snapshot,
    bytes: Vec<u8>,
    /// The blocks that were written and not punched since.
    written: Vec<bool>,
    /// For each block the number of the last step that touched it.
    touched: Vec<usize>,
}

/// A volume under test.
struct Image<'a> {
    root: &'a Root,
    volume: dunnage_driver_api::Volume,
    written: Vec<bool>,
    touched: Vec<usize>,
    cuts: Vec<Cut>,
}

impl Image<'_> {
    fn size(&self) -> u64 {
        self.volume.capacity.get()
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(self.root.image(&self.volume.name)).unwrap()
    }

    fn touch(&mut self, number: usize, range: Range<u64>, written: Option<bool>) {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            self.touched[block as usize] = number;
            if let Some(written) = written {
                self.written[block as usize] = written;
            }
        }
    }

    fn apply(&mut self, number: usize, step: &Step) {
        let size = self.size();
        let clip = |block: u64, blocks: u64| block * BLOCK..((block + blocks) * BLOCK).min(size);
        let allocate = |file: &File, flags, range: &Range<u64>| {
            rustix::fs::fallocate(file, flags, range.start, range.end - range.start).unwrap();
        };
        match *step {
            Step::Write { offset, length, byte } => {
                let range = offset..(offset + length as u64).min(size);
                self.file().write_all_at(&vec![byte; (range.end - range.start) as usize], offset).unwrap();
                self.touch(number, range, Some(true));
            }
            Step::Rewrite { block, blocks } => {
                let range = clip(block, blocks);
                let mut bytes = vec![0; (range.end - range.start) as usize];
                self.file().read_exact_at(&mut bytes, range.start).unwrap();
                self.file().write_all_at(&bytes, range.start).unwrap();
                self.touch(number, range, Some(true));
            }
            Step::Punch { block, blocks } => {
                let range = clip(block, blocks);
                allocate(&self.file(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, &range);
                self.touch(number, range, Some(false));
            }
            Step::Zero { block, blocks } => {
                let range = clip(block, blocks);
                allocate(&self.file(), FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, &range);
                // Whether it writes zeros is the file system's affair: it may.
                self.touch(number, range, Some(true));
            }
            Step::Allocate { block, blocks } => allocate(&self.file(), FallocateFlags::KEEP_SIZE, &clip(block, blocks)),
            Step::Grow { by } => {
                let grown = self.root.expand(&self.volume, size + by).unwrap();
                self.volume.capacity = dunnage_driver_api::Bytes::new(grown);
                self.written.resize((grown / BLOCK) as usize, false);
                self.touched.resize((grown / BLOCK) as usize, 0);
            }
            Step::Snapshot => self.cut(),
        }
    }

    fn cut(&mut self) {
        let name = format!("{}-{}", self.volume.name, self.cuts.len());
        let snapshot = self.root.cut(&name, &self.volume).unwrap();
        let bytes = std::fs::read(self.root.path().join("snapshots").join(&name)).unwrap();
        let (written, touched) = (self.written.clone(), self.touched.clone());
        self.cuts.push(Cut { snapshot, bytes, written, touched });
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for new in &self.cuts {
            let told = blocks(new, &all(self.root, None, &new.snapshot, 0, 3));
            for (number, block) in new.bytes.chunks(BLOCK as usize).enumerate() {
                let holds = block.iter().any(|byte| *byte != 0);
                prop_assert!(told[number] || !holds, "allocated block {number} of {} is missed", new.snapshot.name);
                prop_assert!(!told[number] || new.written[number], "block {number} was never written");
            }
            for old in &self.cuts {
                let whole = all(self.root, Some(&old.snapshot), &new.snapshot, 0, 1000);
                let told = blocks(new, &whole);
                for (number, block) in new.bytes.chunks(BLOCK as usize).enumerate() {
                    let start = number * BLOCK as usize;
                    let before = old.bytes.get(start..start + block.len()).unwrap_or(&[0; BLOCK as usize]);
                    let pair = (&old.snapshot.name, &new.snapshot.name);
                    prop_assert!(told[number] || before == block, "changed block {number} of {pair:?} is missed");
                    let touched = old.touched.get(number).unwrap_or(&0) != &new.touched[number];
                    prop_assert!(!told[number] || touched, "block {number} of {pair:?} was not written");
                }
                for from in [BLOCK * 7, SIZE / 2 - 1, SIZE / 3 * 2] {
                    prop_assert_eq!(all(self.root, Some(&old.snapshot), &new.snapshot, from, 1000), rest(&whole, from));
                }
            }
        }
        Ok(())
    }
}

/// Which blocks the ranges have.
fn blocks(of: &Cut, ranges: &[Range<u64>]) -> Vec<bool> {
    let mut told = vec![false; of.bytes.len() / BLOCK as usize];
    for range in ranges {
        assert!(range.start % BLOCK == 0 && range.end % BLOCK == 0, "{range:?}");
        told[(range.start / BLOCK) as usize..(range.end / BLOCK) as usize].fill(true);
    }
    told
}

fn changed_blocks(calls: &Calls) -> &dyn ChangedBlocks {
    calls.0.changed_blocks.as_deref().unwrap()
}

fn begin(calls: &Calls, base: Option<&Snapshot>, target: &Snapshot, from: u64) -> Box<dyn BlockRanges> {
    let told = match base {
        Some(base) => changed_blocks(calls).changed(&cx(), base, target, from),
        None => changed_blocks(calls).allocated(&cx(), target, from),
    };
    told.unwrap()
}

/// All that is told in pages of `limit`, with what two pages cut joined again.
fn all(calls: &Calls, base: Option<&Snapshot>, target: &Snapshot, from: u64, limit: usize) -> Vec<Range<u64>> {
    let mut ranges = begin(calls, base, target, from);
    let mut found: Vec<Range<u64>> = Vec::new();
    while let Some(page) = ranges.next(&cx(), limit).unwrap() {
        assert!(page.len() <= limit);
        for range in page {
            assert!(range.start < range.end && range.end <= target.size.get() && range.end > from, "{range:?}");
            match found.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                Some(last) => {
                    assert!(last.end < range.start);
                    found.push(range);
                }
                None => found.push(range),
            }
        }
    }
    assert_eq!(ranges.next(&cx(), limit).unwrap(), None);
    found
}

/// What of the ranges lies behind a byte.
fn rest(ranges: &[Range<u64>], from: u64) -> Vec<Range<u64>> {
    let behind = ranges.iter().filter(|range| range.end > from);
    behind.map(|range| range.start.max(from)..range.end).collect()
}

/// A new btrfs whose images are compressed.
fn compressed() -> Root {
    let root = Root::on_new(FsType::Btrfs, "", 512 * MIB);
    let images = root.path().join("images");
    run("btrfs", &["property", "set", images.to_str().unwrap(), "compression", "zstd"]);
    root
}

fn try_all(root: &Root, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let number = Cell::new(0);
    let tried = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
        number.set(number.get() + 1);
        let volume = root.create(&format!("v{}", number.get()), SIZE).unwrap();
        let blocks = (SIZE / BLOCK) as usize;
        let mut image =
            Image { root, volume, written: vec![false; blocks], touched: vec![0; blocks], cuts: Vec::new() };
        for (number, step) in steps.iter().enumerate() {
            image.apply(number + 1, step);
        }
        image.cut();
        let checked = image.check();
        for cut in &image.cuts {
            root.snapshots().delete(&cx(), &cut.snapshot).unwrap();
        }
        root.delete(&image.volume).unwrap();
        root.wait_for_the_trash();
        checked
    });
    tried.unwrap();
}

#[test]
fn no_changed_block_is_missed_and_no_other_is_told_than_those_that_were_written() {
    for root in roots() {
        try_all(&root, 32);
    }
}

#[test]
fn of_compressed_data_no_changed_block_is_missed_either() {
    if is_root() {
        try_all(&compressed(), 16);
    }
}

#[test]
fn two_parts_of_one_compressed_extent_have_one_place_and_are_not_the_same() {
    if !is_root() {
        return;
    }
    let root = compressed();
    let volume = root.create("v", SIZE).unwrap();
    let file = File::options().write(true).open(root.image("v")).unwrap();
    let pages: Vec<_> = (0..32_u8).flat_map(|page| [page; BLOCK as usize]).collect();
    file.write_all_at(&pages, 0).unwrap();
    root.cut("whole", &volume).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, BLOCK, SIZE - BLOCK).unwrap();
    let base = root.cut("base", &volume).unwrap();
    // The second page in the place of the first, as a program may do it that looks for blocks of the same bytes.
    let whole = File::open(root.path().join("snapshots/whole")).unwrap();
    let (mut from, mut to) = (BLOCK, 0);
    let copied = rustix::fs::copy_file_range(&whole, Some(&mut from), &file, Some(&mut to), BLOCK as usize).unwrap();
    assert_eq!(copied as u64, BLOCK);
    let target = root.cut("target", &volume).unwrap();
    assert_eq!(all(&root, Some(&base), &target, 0, 6), slice::from_ref(&(0..BLOCK)));
}

#[test]
fn what_was_told_in_part_goes_on_at_any_byte() {
    for root in roots() {
        let volume = root.create("v", SIZE).unwrap();
        let file = File::options().write(true).open(root.image("v")).unwrap();
        let base = root.cut("base", &volume).unwrap();
        for number in 0..20 {
            file.write_all_at(&[1; 3 * BLOCK as usize], number * 10 * BLOCK).unwrap();
        }
        let target = root.cut("target", &volume).unwrap();
        for base in [None, Some(&base)] {
            let whole = all(&root, base, &target, 0, 100);
            assert_eq!(whole.len(), 20);
            for limit in [1, 2, 7, 20, 21] {
                assert_eq!(all(&root, base, &target, 0, limit), whole);
            }
            for range in &whole {
                for from in [range.start, range.start + 1, range.start + BLOCK, range.end - 1, range.end, range.end + 1]
                {
                    assert_eq!(all(&root, base, &target, from, 6), rest(&whole, from));
                }
            }
            assert_eq!(all(&root, base, &target, SIZE, 6), []);
        }
        assert_eq!(all(&root, Some(&target), &target, 0, 6), []);
    }
}

#[test]
fn more_extents_than_the_kernel_gives_at_once_are_all_told() {
    for root in roots() {
        let volume = root.create("v", 32 * MIB).unwrap();
        let file = File::options().write(true).open(root.image("v")).unwrap();
        for number in 0..2000 {
            file.write_all_at(b"data", number * 3 * BLOCK).unwrap();
        }
        let base = root.cut("base", &volume).unwrap();
        let every = |step: usize| (0..2000_u64).step_by(step).map(|number| number * 3 * BLOCK).map(|at| at..at + BLOCK);
        assert_eq!(all(&root, None, &base, 0, 100), every(1).collect::<Vec<_>>());
        for number in (0..2000).step_by(500) {
            file.write_all_at(b"more", number * 3 * BLOCK).unwrap();
        }
        let target = root.cut("target", &volume).unwrap();
        assert_eq!(all(&root, Some(&base), &target, 0, 3), every(500).collect::<Vec<_>>());
    }
}

#[test]
fn what_holds_zeros_that_were_written_is_told_and_what_was_only_allocated_is_not() {
    for root in roots() {
        let volume = root.create("v", SIZE).unwrap();
        let file = File::options().write(true).open(root.image("v")).unwrap();
        let base = root.cut("base", &volume).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, MIB).unwrap();
        file.write_all_at(&[0; BLOCK as usize], 2 * MIB).unwrap();
        let target = root.cut("target", &volume).unwrap();
        for base in [None, Some(&base)] {
            assert_eq!(all(&root, base, &target, 0, 6), slice::from_ref(&(2 * MIB..2 * MIB + BLOCK)));
        }
    }
}
