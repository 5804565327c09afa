//! Durable lives made of system calls alone: what no host can be faster than.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount};

use crate::loop_device::attach;

const SIZE: u64 = 64 << 20;
const BLOCK: [u8; 4096] = [b'd'; 4096];

/// Lives in a second, by so many threads.
pub(crate) fn lives(driver: &str, workers: usize, lives: usize, folder: &Path) -> Result<f64> {
    let life = match driver {
        "dir" => folder_life,
        "image" => image_life,
        other => bail!("there are no bare lives of {other}"),
    };
    for name in ["records", "volumes", "pods"] {
        fs::create_dir(folder.join(name))?;
    }
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let worker = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= lives {
                    return Ok(());
                }
                life(folder, number)?;
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    Ok(lives as f64 / start.elapsed().as_secs_f64())
}

/// Create a folder, bind it twice, write, unmount twice, delete; three fsyncs.
fn folder_life(folder: &Path, number: usize) -> Result<()> {
    let (volume, record) = (folder.join(format!("volumes/{number}")), folder.join(format!("records/{number}")));
    record_durably(folder, &record)?;
    fs::create_dir(&volume)?;
    sync_folder(&folder.join("volumes"))?;
    let staging = folder.join(format!("pods/s{number}"));
    fs::create_dir(&staging)?;
    bind(&volume, &staging)?;
    in_pod(folder, number, &staging)?;
    take_away(&staging)?;
    fs::remove_dir_all(&volume)?;
    fs::remove_file(&record)?;
    Ok(())
}

/// Make a sparse file, attach and format it, mount it, bind it, write, unmount twice, detach, delete.
///
/// Six fsyncs: the length of the file, its name, the record and its name before the create is answered; that both names
/// are gone before the delete is. The host's three more, for a formatting that is cut off, are its own affair.
fn image_life(folder: &Path, number: usize) -> Result<()> {
    let (image, record) = (folder.join(format!("volumes/{number}")), folder.join(format!("records/{number}")));
    let file = File::options().read(true).write(true).create_new(true).open(&image)?;
    file.set_len(SIZE)?;
    file.sync_all()?;
    sync_folder(&folder.join("volumes"))?;
    record_durably(folder, &record)?;
    {
        let (_held, device) = attach(&file).context("cannot attach a loop device")?;
        let status = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", &device])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "mkfs.ext4 failed");
        let staging = folder.join(format!("pods/s{number}"));
        fs::create_dir(&staging)?;
        mount(device.as_str(), &staging, "ext4", MountFlags::empty(), None).context("cannot mount")?;
        in_pod(folder, number, &staging)?;
        take_away(&staging)?;
    }
    fs::remove_file(&image)?;
    sync_folder(&folder.join("volumes"))?;
    fs::remove_file(&record)?;
    sync_folder(&folder.join("records"))
}

/// Two fsyncs: the record's, and that of the folder it is renamed in.
fn record_durably(folder: &Path, record: &Path) -> Result<()> {
    let unfinished = record.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(b"{\"version\":1,\"name\":\"a volume of bare system calls\"}")?;
    file.sync_all()?;
    fs::rename(&unfinished, record)?;
    sync_folder(&folder.join("records"))
}

fn sync_folder(folder: &Path) -> Result<()> {
    Ok(File::open(folder)?.sync_all()?)
}

/// Publishing: a bind of what is staged, and a write through it.
fn in_pod(folder: &Path, number: usize, staging: &Path) -> Result<()> {
    let target = folder.join(format!("pods/t{number}"));
    fs::create_dir(&target)?;
    bind(staging, &target)?;
    fs::write(target.join("file"), BLOCK)?;
    take_away(&target)
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    let tree = open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn take_away(mounted: &Path) -> Result<()> {
    unmount_soon(mounted)?;
    Ok(fs::remove_dir(mounted)?)
}

/// A child between fork and exec holds what its parent had open for an instant.
fn unmount_soon(path: &Path) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    loop {
        match unmount(path, UnmountFlags::empty()) {
            Err(Errno::BUSY) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_micros(200)),
            unmounted => return unmounted.with_context(|| format!("cannot unmount {}", path.display())),
        }
    }
}
