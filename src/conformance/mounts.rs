//! The table of mounts, as the kernel shows it to this process.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::demo::left::unescape;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// Those of this mount and those of its file system.
    pub(super) options: Vec<String>,
}

/// The mounts at `folder` or below it.
pub(super) fn beneath(folder: &Path) -> io::Result<Vec<Mount>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(parse).filter(|mount| mount.point.starts_with(folder)).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let point = unescape(fields.nth(4)?);
    let own = fields.next()?;
    let options = [own, fields.next_back()?].into_iter().flat_map(|options| options.split(','));
    Some(Mount { point, options: options.map(str::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_mount_and_of_its_file_system_are_found() {
        let line = r"36 35 98:0 /mnt1 /mnt/a\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert_eq!(mount.options, ["rw", "noatime", "rw", "errors=continue"]);
    }
}
