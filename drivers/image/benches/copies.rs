//! What a copy in the background takes, beside `cp --sparse=always` of the same file and a sync of it:
//!
//! ```text
//! cargo bench -p dunnage-driver-image --bench copies    # 1 GiB, half of it data
//! ```
//!
//! It needs root, and makes an ext4 in a file below `$TMPDIR`, which takes 4 GiB there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code, missing_docs, unreachable_pub)]

#[path = "../tests/image/support.rs"]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dunnage_driver_api::{CreateSnapshot, Fingerprint, FsType, Parameters};
use support::{MIB, Root, cx, run, until};

const SIZE: u64 = 1 << 30;
const ROUNDS: usize = 5;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root, to mount");
        return;
    }
    let root = Root::on_new(FsType::Ext4, r#""overcommit": 20"#, 4 << 30);
    let volume = root.create("v", SIZE).unwrap();
    let image = root.image("v");
    let file = File::options().write(true).open(&image).unwrap();
    for at in (0..SIZE).step_by(2 * MIB as usize) {
        let block: Vec<u8> = (0..MIB / 8).flat_map(|word| (at + word + 1).to_le_bytes()).collect();
        file.write_all_at(&block, at).unwrap();
    }
    file.sync_all().unwrap();
    let snapshots = root.0.snapshots.as_ref().unwrap().0.as_ref();
    let ours = || {
        let fingerprint = Fingerprint::of(&Default::default());
        let (id, parameters) = (root.id(&volume), Parameters::default());
        let request = CreateSnapshot::new("s", id, volume.clone(), parameters, fingerprint);
        let taken = snapshots.create(&cx(), &request).unwrap();
        until("the copy is whole", || snapshots.find(&cx(), &taken.key).unwrap().filter(|found| found.ready));
    };
    let after = || {
        let key = dunnage_driver_api::SnapshotKey::of_name("s");
        snapshots.delete(&cx(), &snapshots.find(&cx(), &key).unwrap().unwrap()).unwrap();
        root.wait_for_the_trash();
    };
    let copy = root.path().join("copy");
    let theirs = || {
        run("cp", &["--sparse=always", image.to_str().unwrap(), copy.to_str().unwrap()]);
        run("sync", &[copy.to_str().unwrap()]);
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0].push(cold(&image, ours));
        after();
        times[1].push(cold(&image, theirs));
        std::fs::remove_file(&copy).unwrap();
    }
    let [ours, theirs] = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("a snapshot {ours:.2?}, cp and sync {theirs:.2?}: {ratio:.2} of it");
}

/// How long it takes when nothing of the image is in memory.
fn cold(image: &Path, work: impl Fn()) -> Duration {
    rustix::fs::sync();
    let file = File::open(image).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let started = Instant::now();
    work();
    started.elapsed()
}
