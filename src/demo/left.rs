//! What a demo has left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the last files may take to go: a driver may remove them in the background.
const PATIENCE: Duration = Duration::from_secs(10);

/// The mounts of this process below `folder`.
pub(crate) fn mounts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(mounts_in(&fs::read_to_string("/proc/self/mountinfo")?, folder))
}

fn mounts_in(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    const MOUNT_POINT: usize = 4;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(MOUNT_POINT));
    points.map(unescape).filter(|point| point.starts_with(folder)).collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
pub(crate) fn unescape(point: &str) -> PathBuf {
    let named = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(named.iter().fold(point.to_owned(), |point, (code, letter)| point.replace(code, letter)))
}

/// The loop devices whose file lies below `folder`, or was removed from there.
pub(crate) fn loop_devices(folder: &Path) -> io::Result<Vec<String>> {
    let mut devices = Vec::new();
    let entries = match fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(devices),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // A device that goes away meanwhile has no backing file any more.
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file"))
            && Path::new(file.trim_end()).starts_with(folder)
        {
            devices.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(devices)
}

/// The files below a root: what there is before the first volume has to be what there is after the last.
pub(crate) fn files(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A driver's own cleaning is faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => drop(found.insert(entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The files below the roots that were not there before, once they are none or patience has ended.
pub(crate) fn new_files(roots: &[PathBuf], before: &BTreeSet<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let start = Instant::now();
    loop {
        let mut left = Vec::new();
        for root in roots {
            left.extend(files(root)?.into_iter().filter(|file| !before.contains(file)));
        }
        if left.is_empty() || start.elapsed() > PATIENCE {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_count() {
        let mountinfo = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                         30 21 0:30 / /tmp/demo/pods/a\\040b rw - tmpfs tmpfs rw\n\
                         31 21 0:31 / /tmp/demonstration rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_in(mountinfo, Path::new("/tmp/demo")), [PathBuf::from("/tmp/demo/pods/a b")]);
    }

    #[test]
    fn a_new_file_in_a_deep_folder_is_found_and_an_old_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("marker"), "").unwrap();
        let before = files(root.path()).unwrap();
        assert_eq!(new_files(&[root.path().to_owned()], &before).unwrap(), Vec::<PathBuf>::new());
        fs::write(root.path().join("a/b/volume"), "").unwrap();
        let after = files(root.path()).unwrap();
        assert_eq!(after.difference(&before).count(), 1);
    }

    #[test]
    fn a_loop_device_is_nobodys_below_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(loop_devices(folder.path()).unwrap(), Vec::<String>::new());
    }
}
