//! A disk that can be made to fail.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;

/// A disk of the device mapper above a file, whose parts can be made to fail: for the guest, whose kernel has one.
#[derive(Debug)]
pub struct FaultyDisk {
    name: String,
    below: String,
    sectors: u64,
}

/// What of a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Reads and writes.
    All,
    /// Writes alone.
    Writes,
}

impl FaultyDisk {
    /// Makes one of `mebibytes` above a new file, which must lie in the folder of the test.
    ///
    /// # Errors
    /// Without root, loop devices or a device mapper.
    pub fn new(file: &Path, mebibytes: u64) -> Result<Self> {
        File::create(file)?.set_len(mebibytes << 20)?;
        let output = Command::new("/sbin/losetup").args(["--find", "--show"]).arg(file).output()?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let below = String::from_utf8(output.stdout)?.trim().to_owned();
        run("modprobe", &["-a", "dm_mod", "dm_flakey"])?;
        let name = format!("faulty-{}", below.trim_start_matches("/dev/"));
        let disk = Self { name, below, sectors: mebibytes << 11 };
        let table = disk.linear(disk.sectors);
        run("dmsetup", &["create", "--noudevsync", "--noudevrules", &disk.name, "--table", &table])?;
        Ok(disk)
    }

    /// Its path, by the kernel's own name, since there is no udev to make another.
    ///
    /// # Errors
    /// It is not there.
    pub fn path(&self) -> Result<String> {
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            if fs::read_to_string(entry.path().join("dm/name")).is_ok_and(|name| name.trim() == self.name) {
                return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
            }
        }
        anyhow::bail!("the kernel has no device {}", self.name)
    }

    /// Has all from this sector on fail. What is under way is waited for.
    ///
    /// # Errors
    /// The device mapper's.
    pub fn fail_from(&self, sector: u64, failing: Failing) -> Result<()> {
        let rest = self.sectors - sector;
        let target = match failing {
            Failing::All => format!("{sector} {rest} error"),
            Failing::Writes => format!("{sector} {rest} flakey {} {sector} 0 1 1 error_writes", self.below),
        };
        let before = if sector == 0 { String::new() } else { self.linear(sector) + "\n" };
        self.load(&format!("{before}{target}"))
    }

    /// Has all of it work again, with what was on it.
    ///
    /// # Errors
    /// The device mapper's.
    pub fn heal(&self) -> Result<()> {
        self.load(&self.linear(self.sectors))
    }

    fn linear(&self, sectors: u64) -> String {
        format!("0 {sectors} linear {} 0", self.below)
    }

    fn load(&self, table: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), table).context("cannot write a table")?;
        // A file system above is not frozen for it, for which it would have to write.
        run("dmsetup", &["suspend", "--noflush", "--nolockfs", &self.name])?;
        run("dmsetup", &["load", &self.name, &file.path().display().to_string()])?;
        run("dmsetup", &["resume", "--noudevsync", "--noudevrules", &self.name])
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        // What is in use goes with the guest.
        let _ = run("dmsetup", &["remove", "--noudevsync", "--noudevrules", "--force", &self.name]);
    }
}
