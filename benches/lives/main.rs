//! Whole lives of volumes beside the same lives made of bare system calls, on the same machine in the same run.
//!
//! `cargo bench --bench lives`, as root. The bare lives are this program again, without anything of the host; the
//! host's are measured by `dunnage bench`. Both run in a mount namespace of their own.

#![allow(clippy::print_stdout, reason = "the table is the result")]

mod bare;
mod loop_device;
mod served;
mod unshare;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use served::Served;

const WORKERS: [usize; 3] = [1, 8, 64];

/// How often the bare lives and the host's take turns; the middle of the ratios is what is printed.
const TURNS: usize = 3;

/// What makes the lives of a driver, and how many one turn has.
struct Case {
    driver: &'static str,
    lives: usize,
    target: f64,
}

const CASES: [Case; 2] =
    [Case { driver: "dir", lives: 1500, target: 0.40 }, Case { driver: "image", lives: 200, target: 0.80 }];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bare", driver, workers, lives, folder] => {
            let rate = bare::lives(driver, workers.parse()?, lives.parse()?, Path::new(folder))?;
            println!("{rate}");
            Ok(())
        }
        // `cargo bench` passes --bench, `cargo test --benches` does not: a benchmark is no test.
        arguments if arguments.contains(&"--bench") => compare(),
        _ => Ok(()),
    }
}

fn compare() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "run this as root: it mounts, and image attaches loop devices");
    unshare::mounts().context("cannot leave the mounts of the machine")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let folder = tempfile::Builder::new().prefix("dunnage-lives-").tempdir()?;
    println!("{:<7}{:>8}{:>12}{:>12}{:>8}  at least", "driver", "workers", "bare/s", "dunnage/s", "ratio");
    for case in CASES {
        for workers in WORKERS {
            let mut turns = Vec::new();
            for turn in 0..TURNS {
                let place = folder.path().join(format!("{}-{workers}-{turn}", case.driver));
                turns.push(take_turn(&case, workers, &place)?);
            }
            turns.sort_by(|(bare, host), (other_bare, other_host)| (host / bare).total_cmp(&(other_host / other_bare)));
            let (bare, host) = turns[TURNS / 2];
            let (driver, ratio, target) = (case.driver, host / bare, case.target);
            println!("{driver:<7}{workers:>8}{bare:>12.0}{host:>12.0}{ratio:>8.2}  {target:.2}");
        }
    }
    Ok(())
}

/// Lives in a second: the bare ones, and the host's.
fn take_turn(case: &Case, workers: usize, place: &Path) -> Result<(f64, f64)> {
    let bare_folder = place.join("bare");
    std::fs::create_dir_all(&bare_folder)?;
    let bare = bare_rate(case, workers, &bare_folder)?;
    // A host in a mount namespace of its own publishes only below a mount that others can see.
    let shared = place.join("host");
    std::fs::create_dir(&shared)?;
    mount_bind(&shared, &shared)?;
    let host = mount_change(&shared, MountPropagationFlags::SHARED)
        .map_err(anyhow::Error::from)
        .and_then(|()| Served::start(case.driver, &shared)?.rate(workers, case.lives));
    rustix::mount::unmount(&shared, rustix::mount::UnmountFlags::DETACH)?;
    Ok((bare, host?))
}

fn bare_rate(case: &Case, workers: usize, folder: &Path) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bare", case.driver, &workers.to_string(), &case.lives.to_string()])
        .arg(folder)
        .output()?;
    if !output.status.success() {
        bail!("the bare lives of {} failed: {}", case.driver, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
