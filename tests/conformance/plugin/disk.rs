//! Folders, files, mounts and loop devices.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use tonic::Status;

pub(super) fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// An empty volume.
pub(super) fn make(path: &Path, block: bool, bytes: i64) -> io::Result<()> {
    remove(path)?;
    if block { File::create(path)?.set_len(bytes.unsigned_abs()) } else { fs::create_dir(path) }
}

/// A copy, whole or not there.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    remove(&part)?;
    remove(to)?;
    let done = Command::new("cp").args(["-a", "--sparse=always", "--"]).arg(from).arg(&part).output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    fs::rename(part, to)
}

pub(super) fn grow(path: &Path, bytes: i64) -> io::Result<()> {
    if path.is_file() { File::options().write(true).open(path)?.set_len(bytes.unsigned_abs()) } else { Ok(()) }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn is_mounted(target: &Path) -> io::Result<bool> {
    let target = target.to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(target.as_str())))
}

/// Binds a folder or a device to a target, which is made.
pub(super) fn bind(from: &Path, target: &Path, readonly: bool, noatime: bool) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        File::create(target)?;
    }
    mount_bind(from, target)?;
    let mut flags = MountFlags::BIND;
    flags.set(MountFlags::RDONLY, readonly);
    flags.set(MountFlags::NOATIME, noatime);
    if flags != MountFlags::BIND {
        mount_remount(target, flags, "")?;
    }
    Ok(())
}

/// Unmounts all that lies at a target, and removes it.
pub(super) fn unbind(target: &Path, keeps: bool) -> io::Result<()> {
    let start = Instant::now();
    while is_mounted(target)? {
        match unmount(target, UnmountFlags::NOFOLLOW) {
            // A program that another test starts in this process has the open files of all until it runs.
            Err(Errno::BUSY) if start.elapsed() < Duration::from_secs(10) => std::thread::yield_now(),
            unmounted => unmounted?,
        }
    }
    if keeps {
        return Ok(());
    }
    let removed = if target.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Attaches a file to a loop device of its own.
pub(super) fn attach(file: &Path, readonly: bool) -> io::Result<PathBuf> {
    let mut command = Command::new("/sbin/losetup");
    command.args(["--find", "--show"]).args(readonly.then_some("--read-only")).arg(file);
    let done = command.output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&done.stdout).trim()))
}

/// The loop devices of a file.
pub(super) fn devices(file: &Path) -> io::Result<Vec<PathBuf>> {
    let done =
        Command::new("/sbin/losetup").args(["--noheadings", "--output", "NAME", "--associated"]).arg(file).output()?;
    Ok(String::from_utf8_lossy(&done.stdout).lines().map(|line| PathBuf::from(line.trim())).collect())
}

pub(super) fn detach(file: &Path) -> io::Result<()> {
    for device in devices(file)? {
        Command::new("/sbin/losetup").arg("--detach").arg(device).output()?;
    }
    Ok(())
}

/// Lets the devices of a file see that it has grown.
pub(super) fn refresh(file: &Path) -> io::Result<()> {
    for device in devices(file)? {
        Command::new("/sbin/losetup").arg("--set-capacity").arg(device).output()?;
    }
    Ok(())
}
