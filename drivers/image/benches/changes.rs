//! What it takes to tell the changes between two snapshots, beside reading the later one:
//!
//! ```text
//! cargo bench -p dunnage-driver-image --bench changes    # of 10 GiB, a tenth of it data, 1 % changed
//! ```
//!
//! It needs root, and makes an XFS and a btrfs in files below `$TMPDIR`, which take 2 GiB there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code, missing_docs, unreachable_pub)]

#[path = "../tests/image/support.rs"]
mod support;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dunnage_driver_api::{BlockRanges, CreateSnapshot, Fingerprint, FsType, Parameters, Result, Snapshot, Volume};
use support::{MIB, Root, cx};

const SIZE: u64 = 10 << 30;
const CHANGED: u64 = SIZE / 100;
const ROUNDS: usize = 9;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root, to mount");
        return;
    }
    for fs_type in [FsType::Xfs, FsType::Btrfs] {
        for piece in [64 << 10, 4 << 10] {
            measure(fs_type, piece);
        }
    }
}

fn measure(fs_type: FsType, piece: u64) {
    let root = Root::on_new(fs_type, r#""overcommit": 20"#, 4 << 30);
    let volume = root.create("v", SIZE).unwrap();
    let file = File::options().write(true).open(root.image("v")).unwrap();
    for number in 0..SIZE / (10 * MIB) {
        file.write_all_at(&noise(MIB, number), number * 10 * MIB).unwrap();
    }
    let base = cut(&root, "base", &volume).unwrap();
    let count = CHANGED / piece;
    for number in 0..count {
        // Half of them over data, the others into holes.
        let at = number * (SIZE / count) / (10 * MIB) * (10 * MIB) + (number * 2 * piece) % (2 * MIB);
        file.write_all_at(&noise(piece, number), at).unwrap();
    }
    let target = cut(&root, "target", &volume).unwrap();
    let changed_blocks = root.0.changed_blocks.as_ref().unwrap();
    let mut told = 0;
    let whole = median(|| {
        told = tell(changed_blocks.changed(&cx(), &base, &target, 0).unwrap());
    });
    let mut allocated = 0;
    let data = median(|| {
        allocated = tell(changed_blocks.allocated(&cx(), &target, 0).unwrap());
    });
    let reading = read(&root.path().join("snapshots/target"));
    println!("{fs_type}, {count} pieces of {} KiB: reading all takes {reading:.1?}", piece >> 10);
    for (what, took, bytes) in [("changed", whole, told), ("allocated", data, allocated)] {
        let ratio = 100.0 * took.as_secs_f64() / reading.as_secs_f64();
        println!("  {what:<10}{took:>10.1?}  {ratio:>6.2} % of it, {} MiB are told", bytes / MIB);
    }
}

fn cut(root: &Root, name: &str, volume: &Volume) -> Result<Snapshot> {
    let fingerprint = Fingerprint::of(&Default::default());
    let request = CreateSnapshot::new(name, root.id(volume), volume.clone(), Parameters::default(), fingerprint);
    root.0.snapshots.as_ref().unwrap().0.create(&cx(), &request)
}

fn tell(mut ranges: Box<dyn BlockRanges>) -> u64 {
    let mut told = 0;
    while let Some(page) = ranges.next(&cx(), 8192).unwrap() {
        told += page.iter().map(|range| range.end - range.start).sum::<u64>();
    }
    told
}

/// Not from memory: what was read before is forgotten first.
fn read(path: &Path) -> Duration {
    let mut file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut buffer = vec![0; MIB as usize];
    let started = Instant::now();
    while file.read(&mut buffer).unwrap() > 0 {}
    started.elapsed()
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// Bytes that no two blocks share.
fn noise(length: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}
