//! Disks with project quotas.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::mount_new;

/// A file system that has project quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotas {
    /// With the features `project` and `quota`.
    Ext4,
    /// XFS.
    Xfs,
}

impl Quotas {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// The program that makes one whose quotas can be enabled, with its arguments.
    pub fn mkfs(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["mkfs.ext4", "-q", "-F", "-O", "project,quota", "-E", "quotatype=prjquota"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f"],
        }
    }

    /// Makes one of 320 MiB with project quotas enabled in the file `image` and mounts it on `folder`, as
    /// [`mount_disk`](crate::mount_disk) does.
    ///
    /// # Errors
    /// Without root, or on a kernel that has no such quotas.
    pub fn mount(self, image: &Path, folder: &Path) -> Result<()> {
        mount_new(image, 320, folder, self.mkfs(), "loop,prjquota")
    }
}

/// The projects that the file system at `folder` keeps anything of, what they use or what they may, but for the one that
/// is everybody's.
///
/// # Errors
/// There is no xfs_quota(8), or quotas are not enabled.
pub fn projects(folder: &Path) -> Result<BTreeSet<u32>> {
    let output = Command::new("xfs_quota").args(["-f", "-x", "-c", "report -p -n -N -b -i"]).arg(folder).output()?;
    ensure!(output.status.success(), "xfs_quota failed: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let parse = |line: &str| line.split_whitespace().next()?.strip_prefix('#')?.parse().ok();
    let found: BTreeSet<u32> = text.lines().filter_map(parse).collect();
    // It ends well where it could not ask.
    ensure!(found.contains(&0), "xfs_quota has reported no projects: {output:?}");
    Ok(found.into_iter().filter(|id| *id != 0).collect())
}
