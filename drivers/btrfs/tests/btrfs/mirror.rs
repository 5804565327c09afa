//! A btrfs on two devices.

use std::path::Path;
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};

use crate::support::{MIB, run, unmount};

/// A file system that keeps everything twice. Its devices go in the end.
pub(crate) struct Mirror {
    folder: TempDir,
    devices: Vec<(String, NamedTempFile)>,
}

impl Mirror {
    pub(crate) fn new() -> Self {
        let mut mirror = Self { folder: tempfile::tempdir().unwrap(), devices: Vec::new() };
        for _ in 0..2 {
            let image = NamedTempFile::new().unwrap();
            image.as_file().set_len(256 * MIB).unwrap();
            let device = run("losetup", &["--find", "--show", image.path().to_str().unwrap()]);
            mirror.devices.push((device.trim().into(), image));
        }
        let devices: Vec<_> = mirror.devices.iter().map(|(device, _)| device.as_str()).collect();
        run("mkfs.btrfs", &[&["-q", "-d", "raid1", "-m", "raid1"], &devices[..]].concat());
        run("btrfs", &[&["device", "scan"], &devices[..]].concat());
        run("mount", &["-t", "btrfs", devices[0], mirror.path().to_str().unwrap()]);
        mirror
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Mounts it again with the second device gone.
    pub(crate) fn lose_one(&self) {
        assert!(unmount(self.path()));
        let [(first, _), (second, _)] = &self.devices[..] else { panic!("there are two") };
        run("wipefs", &["--all", "--quiet", second]);
        run("btrfs", &["device", "scan", "--forget", second]);
        run("mount", &["-t", "btrfs", "-o", "degraded", first, self.path().to_str().unwrap()]);
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        unmount(self.path());
        for (device, _) in &self.devices {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}
