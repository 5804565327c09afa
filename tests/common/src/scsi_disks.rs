//! Disks of a test's own, which the kernel's module scsi_debug has in memory: with an identity, hot-plugged, and gone when a
//! test wants it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::FallocateFlags;

use crate::{run, wait_until};

const DRIVER: &str = "/sys/bus/pseudo/drivers/scsi_debug";
/// The size of each.
const MEBIBYTES: u64 = 100;
const LIMIT: Duration = Duration::from_secs(60);

/// Those that a test has now: the module has one set for all, of which none is ever taken away.
static LENT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A disk of 100 MiB, wiped when a test gets it and given back when this is dropped.
#[derive(Debug)]
pub struct ScsiDisk {
    /// Its host in sysfs, which stays when the disk goes.
    host: PathBuf,
    path: PathBuf,
}

impl ScsiDisk {
    /// Its size in bytes.
    pub const SIZE: i64 = (MEBIBYTES << 20) as i64;

    /// So many of them.
    ///
    /// # Errors
    /// Without root or the module.
    pub fn lend(count: usize) -> Result<Vec<Self>> {
        (0..count).map(|_| Self::one()).collect()
    }

    fn one() -> Result<Self> {
        let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
        if !Path::new(DRIVER).exists() {
            // Where no udev has it loaded.
            run("modprobe", &["sd_mod"])?;
            let size = format!("dev_size_mb={MEBIBYTES}");
            let settings = ["per_host_store=1", "add_host=0", "removable=0", "lbpu=1", "lbpws=1", "delay=0"];
            run("modprobe", &[&["scsi_debug", size.as_str()][..], &settings].concat())?;
        }
        let host = match hosts()?.into_iter().find(|host| !lent.contains(host)) {
            Some(host) => host,
            None => {
                let before = hosts()?;
                fs::write(Path::new(DRIVER).join("add_host"), "1").context("cannot add a disk")?;
                hosts()?.into_iter().find(|host| !before.contains(host)).context("no disk was added")?
            }
        };
        lent.push(host.clone());
        drop(lent);
        let mut disk = Self { host, path: PathBuf::new() };
        disk.plug()?;
        disk.wipe()?;
        Ok(disk)
    }

    /// Its name in `/dev`, which may change when it was away.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name of it in `/dev` that stays the same, as udev would make it.
    pub fn link(&self) -> PathBuf {
        let number = self.host.file_name().unwrap_or_default().to_string_lossy();
        PathBuf::from(format!("/dev/disk/by-id/scsi-test-{number}"))
    }

    /// Takes it away, as a cable that is pulled.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unplug(&mut self) -> Result<()> {
        let name = self.path.file_name().context("it is not plugged in")?.to_owned();
        fs::remove_file(self.link())?;
        fs::write(Path::new("/sys/block").join(name).join("device/delete"), "1")
            .context("cannot take the disk away")?;
        wait_until("the disk to be gone", LIMIT, || Ok(self.name()?.is_none()))
    }

    /// Puts it back, if it is away.
    ///
    /// # Errors
    /// It does not come.
    pub fn plug(&mut self) -> Result<()> {
        if self.name()?.is_none() {
            let number = self.host.file_name().context("a host has no name")?.to_string_lossy().into_owned();
            fs::write(Path::new("/sys/class/scsi_host").join(number).join("scan"), "- - -").context("cannot scan")?;
        }
        wait_until("the disk to be there", LIMIT, || {
            let path = self.name()?.map(|name| Path::new("/dev").join(name));
            self.path = path.filter(|path| path.exists()).unwrap_or_default();
            // Its name is there a little before the kernel opens it.
            Ok(File::open(&self.path).is_ok())
        })?;
        fs::create_dir_all("/dev/disk/by-id")?;
        match fs::remove_file(self.link()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(std::os::unix::fs::symlink(&self.path, self.link())?),
        }
    }

    /// Makes a GPT on it with partitions of these sizes in MiB, and answers their names in `/dev`.
    ///
    /// # Errors
    /// Those of sfdisk.
    pub fn part(&self, mebibytes: &[u64]) -> Result<Vec<PathBuf>> {
        let lines: String = mebibytes.iter().map(|size| format!("size={size}MiB\n")).collect();
        self.sfdisk(&[], &format!("label: gpt\n{lines}"))?;
        let path = self.path.display();
        let parts: Vec<_> = (1..=mebibytes.len()).map(|number| PathBuf::from(format!("{path}{number}"))).collect();
        wait_until("the partitions to be there", LIMIT, || Ok(parts.iter().all(|part| part.exists())))?;
        Ok(parts)
    }

    /// Makes the last partition as large as the disk allows.
    ///
    /// # Errors
    /// Those of sfdisk and partx.
    pub fn grow_part(&self, number: u64) -> Result<()> {
        let number = number.to_string();
        self.sfdisk(&["--no-reread", "--no-tell-kernel", "--force", "-N", &number], ", +\n")?;
        run("partx", &["--update", "--nr", &number, &self.path.display().to_string()])
    }

    fn sfdisk(&self, options: &[&str], script: &str) -> Result<()> {
        let mut command = Command::new("sfdisk");
        command.args(["--quiet"]).args(options).arg(&self.path).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().context("cannot start sfdisk")?;
        std::io::Write::write_all(&mut child.stdin.take().context("sfdisk has no input")?, script.as_bytes())?;
        let status = child.wait()?;
        ensure!(status.success(), "sfdisk {options:?} ended with {status}");
        Ok(())
    }

    /// What it is now, if it is plugged in.
    fn name(&self) -> Result<Option<String>> {
        for target in folders(&self.host, "target")? {
            let number =
                target.file_name().map(|name| name.to_string_lossy().replace("target", "")).unwrap_or_default();
            for unit in folders(&target, &number)? {
                let found = folders(&unit.join("block"), "sd")?.into_iter().next();
                if let Some(name) = found.as_deref().and_then(Path::file_name) {
                    return Ok(Some(name.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(None)
    }

    /// Zeroes all of it, and has the kernel see that there are no partitions.
    ///
    /// # Errors
    /// It is in use, or does not take it.
    pub fn wipe(&self) -> Result<()> {
        let disk = File::options().write(true).open(&self.path)?;
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&disk, flags, 0, MEBIBYTES << 20).context("cannot zero the disk")?;
        disk.sync_all()?;
        drop(disk);
        run("blockdev", &["--rereadpt", &self.path.display().to_string()])
    }
}

impl Drop for ScsiDisk {
    fn drop(&mut self) {
        LENT.lock().unwrap_or_else(PoisonError::into_inner).retain(|host| *host != self.host);
    }
}

fn hosts() -> Result<Vec<PathBuf>> {
    let mut hosts = Vec::new();
    for adapter in folders(Path::new("/sys/devices/pseudo_0"), "adapter")? {
        hosts.extend(folders(&adapter, "host")?);
    }
    Ok(hosts)
}

/// The entries of a folder that begin so; none where it is gone.
fn folders(folder: &Path, start: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    let mut found: Vec<_> = names.map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}
