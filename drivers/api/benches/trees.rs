//! How long a copy of a tree takes, beside `cp`:
//!
//! ```text
//! cargo bench -p dunnage-driver-api --bench trees    # of 20,000 small files
//! ```
//!
//! It needs root, and makes file systems in files below `$TMPDIR`, which take 1 GiB there.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, missing_docs, unreachable_pub)]

#[path = "../tests/tree/support.rs"]
mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Disk, Place};

const FILES: usize = 20_000;
const ROUNDS: usize = 7;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root, to mount");
        return;
    }
    for disk in Disk::all() {
        let place = disk.place();
        fill(&place);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            place.clear();
            ours.push(timed(|| assert_eq!(place.copy().unwrap().files, FILES as u64)));
            place.clear();
            theirs.push(timed(|| by_cp(&place)));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("{:5}: {FILES} files in {ours:.2?}, by cp -a in {theirs:.2?}, ratio {ratio:.2}", disk.kind);
    }
}

/// Files of up to 16 KiB, 100 in each folder.
fn fill(place: &Place) {
    for file in 0..FILES {
        let folder = place.source.join(format!("{}/{}", file / 1000, file / 100));
        if file % 100 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(file.to_string()), vec![file as u8; (file * 7919) % (16 << 10)]).unwrap();
    }
    sync(place);
}

/// A copy that is durable, as ours is.
fn by_cp(place: &Place) {
    let status = Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(&place.source).arg(&place.target).status();
    assert!(status.unwrap().success());
    sync(place);
}

fn sync(place: &Place) {
    rustix::fs::syncfs(fs::File::open(&place.source).unwrap()).unwrap();
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
