//! How this process sees the plugin's mounts.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What is written in a volume: one block.
const BLOCK: [u8; 4096] = [b'd'; 4096];

/// Where the mounts of a plugin are seen: here, or through the root of its process where that has another mount
/// namespace, as a plugin in a container or in a user namespace does.
#[derive(Debug, Clone, Default)]
pub(crate) struct View(Option<PathBuf>);

impl View {
    /// The view of the process; this one where it may not be asked.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        let Some(pid) = pid.map(|pid| pid.to_string()) else { return Self(None) };
        match (namespace(&pid), namespace("self")) {
            (Some(theirs), Some(ours)) if theirs != ours => Self(Some(PathBuf::from(format!("/proc/{pid}/root")))),
            _ => Self(None),
        }
    }

    fn path(&self, path: &Path) -> PathBuf {
        match &self.0 {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Writes one block in the volume published at `target`: a file of it, or the device itself.
    pub(crate) fn write(&self, target: &Path, block: bool) -> io::Result<()> {
        let target = self.path(target);
        if block {
            return OpenOptions::new().write(true).open(target)?.write_all(&BLOCK);
        }
        // A file below an unseen mount would lie in the folder under it, and keep the plugin from removing that.
        if !is_mount(&target)? {
            return Err(io::Error::other("nothing is mounted there that this process can see"));
        }
        fs::write(target.join("bench"), BLOCK)
    }
}

fn is_mount(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
