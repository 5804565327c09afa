//! What the driver takes for a snapshot beside the bare call of the kernel, with many volumes and quotas enabled:
//!
//! ```text
//! cargo bench -p dunnage-driver-btrfs            # 1,000 volumes
//! VOLUMES=100 cargo bench -p dunnage-driver-btrfs
//! ```
//!
//! It needs root, and makes a btrfs in a file below `$TMPDIR`.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, missing_docs, unreachable_pub)]

#[path = "../tests/btrfs/support.rs"]
mod support;
#[path = "../src/sys.rs"]
mod sys;

use std::fs::File;
use std::time::{Duration, Instant};

use support::{Disk, MIB, Root, btrfs};

const ROUNDS: usize = 100;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root, to mount");
        return;
    }
    let volumes = std::env::var("VOLUMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    for keys in [r#""quota": "simple""#, r#""quota": "full""#] {
        println!("{volumes} volumes, {keys}, medians of {ROUNDS}");
        measure(&Root::on(Disk::made_by("mkfs.btrfs", 16 << 30), keys), volumes);
    }
}

fn measure(root: &Root, volumes: usize) {
    let started = Instant::now();
    let made: Vec<_> = (0..volumes)
        .map(|number| {
            let volume = root.create(&format!("v{number}"), MIB / 4).unwrap();
            std::fs::write(root.data(&volume.name).join("file"), "data").unwrap();
            volume
        })
        .collect();
    println!("  {:>10.1?}  a create, one after the other", started.elapsed() / volumes as u32);
    let (folder, source) = (File::open(root.path()).unwrap(), File::open(root.data("v0")).unwrap());
    // In turns, so that the state of the file system is the same for each.
    let (mut bare, mut program, mut driver, mut restore, mut delete) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for round in 0..ROUNDS {
        let volume = &made[round % made.len()];
        let name = format!("s{round}");
        bare.push(timed(|| sys::snapshot(&folder, &format!("bare-{round}"), &source, true).unwrap()));
        let from = root.data("v0");
        let to = root.path().join(format!("program-{round}"));
        program.push(timed(|| drop(btrfs(&["subvolume", "snapshot", "-r", from.to_str().unwrap()], &to))));
        driver.push(timed(|| drop(root.snapshot(&name, volume).unwrap())));
        let snapshot = root.find_snapshot(&name).unwrap();
        restore.push(timed(|| drop(root.restore(&format!("r{round}"), &snapshot, MIB / 4).unwrap())));
        delete.push(timed(|| root.delete_snapshot(&snapshot).unwrap()));
    }
    let bare = median(bare);
    let what = [
        ("the bare ioctl", bare),
        ("btrfs subvolume snapshot", median(program)),
        ("a snapshot by the driver", median(driver)),
        ("a restore by the driver", median(restore)),
        ("a delete by the driver", median(delete)),
    ];
    for (what, took) in what {
        println!("  {took:>10.1?}  {:>5.2}  {what}", took.as_secs_f64() / bare.as_secs_f64());
    }
    println!("  {:>10.1?}         what room there is", timed(|| assert!(root.available() > 0)));
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}
