//! A volume group of a test's own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Scratch, run};

/// Disks in memory or in files, and the LVM volume group on them: with a name that no other test has, since it is the
/// kernel's.
#[derive(Debug)]
pub struct VolumeGroup {
    name: String,
    devices: Vec<String>,
}

impl VolumeGroup {
    /// Makes a group of disks of these sizes in the folder of the test.
    ///
    /// # Errors
    /// Without root, LVM, loop devices or a device mapper.
    pub fn new(scratch: &Scratch, mebibytes: &[u64]) -> Result<Self> {
        let mut devices = Vec::new();
        for (index, size) in mebibytes.iter().enumerate() {
            let path = scratch.path().join(format!("disk-{index}"));
            File::create(&path)?.set_len(size << 20)?;
            devices.push(output("losetup", &["--find", "--show", &path.display().to_string()])?);
        }
        Self::on(scratch, devices)
    }

    /// Makes a group of these devices.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(scratch: &Scratch, devices: Vec<String>) -> Result<Self> {
        let folder = scratch.path().file_name().context("the folder has no name")?.to_string_lossy().into_owned();
        Self::named(&folder.replace("dunnage-", "vg"), devices)
    }

    /// Makes a group of this name of these devices.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn named(name: &str, devices: Vec<String>) -> Result<Self> {
        let group = Self::found(name, devices)?;
        let devices: Vec<_> = group.devices.iter().map(String::as_str).collect();
        group.lvm(&[&["pvcreate", "-qq"], devices.as_slice()].concat())?;
        group.lvm(&[&["vgcreate", "-qq", &group.name], devices.as_slice()].concat())?;
        Ok(group)
    }

    /// A group that is on these devices already.
    ///
    /// # Errors
    /// Without root or a device mapper.
    pub fn found(name: &str, devices: Vec<String>) -> Result<Self> {
        // The program that is tested has no right to have LVM load them.
        run("modprobe", &["-a", "dm_mod", "dm_thin_pool", "dm_raid"])?;
        Ok(Self { name: name.into(), devices })
    }

    /// Makes a thin pool of this size, whose writes fail at once where it is full.
    ///
    /// # Errors
    /// What LVM complains of.
    pub fn make_pool(&self, name: &str, mebibytes: u64) -> Result<()> {
        let size = format!("{mebibytes}M");
        let path = format!("{}/{name}", self.name);
        self.lvm(&["lvcreate", "-qq", "--errorwhenfull", "y", "--size", &size, "--thinpool", &path]).map(drop)
    }

    /// The keys of a backend on it, as YAML.
    pub fn keys(&self) -> String {
        format!("vg: {}\ndevices: [{}]\n", self.name, self.devices.join(", "))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its devices.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// Runs a command of LVM on these devices alone, without udev; what it wrote.
    ///
    /// # Errors
    /// What LVM complains of.
    pub fn lvm(&self, arguments: &[&str]) -> Result<String> {
        let (command, rest) = arguments.split_first().context("no command is named")?;
        let settings = "activation{monitoring=0 udev_sync=0 udev_rules=0} backup{backup=0 archive=0} \
                        devices{obtain_device_list_from_udev=0 hints=\"none\"}";
        let devices = self.devices.join(",");
        let all = [&[*command, "--yes", "--devices", &devices, "--config", settings][..], rest].concat();
        output("lvm", &all)
    }

    /// The names of its logical volumes, in order.
    ///
    /// # Errors
    /// What LVM complains of.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let table = self.lvm(&["lvs", "--noheadings", "--options", "lv_name", &self.name])?;
        Ok(table.lines().map(|line| line.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    }

    /// The names of the kernel's devices of it, in order.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn active(&self) -> Result<Vec<String>> {
        let prefix = format!("{}-", self.name);
        let names = std::fs::read_dir("/sys/block")?.flatten();
        let mut names: Vec<_> = names
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("dm/name")).ok())
            .filter_map(|name| name.trim().strip_prefix(&prefix).map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for VolumeGroup {
    fn drop(&mut self) {
        // What is in use goes with the guest. The folder of the test lets the loop devices go.
        let _ = self.lvm(&["vgremove", "-qq", "--force", "--force", &self.name]);
    }
}

/// What a program of the system wrote.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(PathBuf::from(program));
    command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").env("LC_ALL", "C");
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} ended with {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
