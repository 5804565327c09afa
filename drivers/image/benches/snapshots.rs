//! What the driver takes for a copy of a large image beside the bare call of the kernel:
//!
//! ```text
//! cargo bench -p dunnage-driver-image --bench snapshots    # of 10 GiB, a tenth of it data
//! ```
//!
//! It needs root, and makes an XFS and a btrfs in files below `$TMPDIR`, which take 3 GiB there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code, missing_docs, unreachable_pub)]

#[path = "../tests/image/support.rs"]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    CapacityRange, ContentSource, CreateSnapshot, CreateVolume, Fingerprint, FsType, Parameters, Snapshot, SourceId,
    Volume,
};
use support::{MIB, Root, block, cx};

const SIZE: u64 = 10 << 30;
const ROUNDS: usize = 50;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root, to mount");
        return;
    }
    for fs_type in [FsType::Xfs, FsType::Btrfs] {
        measure(fs_type);
    }
}

fn measure(fs_type: FsType) {
    let root = Root::on_new(fs_type, r#""overcommit": 1000"#, 4 << 30);
    let volume = root.create("v", SIZE).unwrap();
    let source = File::options().read(true).write(true).open(root.image("v")).unwrap();
    let data = vec![7; MIB as usize];
    for number in 0..SIZE / (10 * MIB) {
        source.write_all_at(&data, number * 10 * MIB).unwrap();
    }
    source.sync_all().unwrap();
    let path = root.path().join("bare");
    // In turns, so that the state of the file system is the same for each.
    let (mut bare, mut durable, mut snapshot, mut clone, mut restore) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for round in 0..ROUNDS {
        let bare_copy = File::create(&path).unwrap();
        bare.push(timed(|| rustix::fs::ioctl_ficlone(&bare_copy, &source).unwrap()));
        durable.push(bare[round] + timed(|| bare_copy.sync_all().unwrap()));
        std::fs::remove_file(&path).unwrap();
        let name = format!("s{round}");
        let mut taken = None;
        snapshot.push(timed(|| taken = Some(cut(&root, &name, &volume))));
        clone.push(timed(|| copy(&root, &format!("c{round}"), &volume, ContentSource::Volume(volume.clone()))));
        restore.push(timed(|| copy(&root, &format!("r{round}"), &volume, ContentSource::Snapshot(taken.unwrap()))));
    }
    let bare = median(bare);
    println!("{fs_type}, 10 GiB with 1024 pieces of data, medians of {ROUNDS}");
    let what = [
        ("the bare ioctl", bare),
        ("the bare ioctl and a sync of the copy", median(durable)),
        ("a snapshot by the driver", median(snapshot)),
        ("a clone by the driver", median(clone)),
        ("a restore by the driver", median(restore)),
    ];
    for (what, took) in what {
        println!("  {took:>10.1?}  {:>5.2}  {what}", took.as_secs_f64() / bare.as_secs_f64());
    }
}

fn cut(root: &Root, name: &str, volume: &Volume) -> Snapshot {
    let fingerprint = Fingerprint::of(&Default::default());
    let request = CreateSnapshot::new(name, root.id(volume), volume.clone(), Parameters::default(), fingerprint);
    root.0.snapshots.as_ref().unwrap().0.create(&cx(), &request).unwrap()
}

fn copy(root: &Root, name: &str, source: &Volume, content: ContentSource) {
    let fingerprint = Fingerprint::of(&Default::default());
    let size = CapacityRange::new(SIZE as i64, 0).unwrap();
    let request = CreateVolume::new(name, size, vec![block()], Parameters::default(), fingerprint);
    let request = request.holding(SourceId::Volume(root.id(source)), content).unwrap();
    root.0.create.as_ref().unwrap().create(&cx(), &request).unwrap();
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
