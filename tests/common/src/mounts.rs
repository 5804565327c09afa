//! Mounts and loop devices that lie beneath a folder.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};

/// The mount points beneath `folder`, or `folder` itself, as `/proc/self/mountinfo` lists them: oldest first.
///
/// # Errors
/// The list cannot be read.
pub fn mounts_beneath(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(beneath(folder)?.into_iter().map(|(point, _)| point).collect())
}

/// Each mount point with the type of its file system.
fn beneath(folder: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = unescape(fields.nth(4)?);
        let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
        point.starts_with(folder).then(|| (point, String::from_utf8_lossy(fs_type).into_owned()))
    };
    Ok(fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Unmounts all beneath `folder`, the newest first. What is busy is detached; what may hang is forced.
pub(crate) fn unmount_beneath(folder: &Path) {
    for (point, fs_type) in beneath(folder).unwrap_or_default().iter().rev() {
        // A server that is dead or hangs holds whoever asks it to end.
        let hangs = fs_type.starts_with("fuse") || fs_type.starts_with("nfs");
        if hangs || unmount(point, UnmountFlags::NOFOLLOW).is_err() {
            // Nothing better is left to try where this fails too: the folder then stays, and is seen.
            let _ = unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
    }
}

/// The loop devices whose file lies beneath `folder`, also where the file is deleted.
pub fn loop_devices_beneath(folder: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let beneath = |device: &fs::DirEntry| {
        let file = fs::read(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| unescape(file.trim_ascii_end()).starts_with(folder))
    };
    devices.filter(beneath).map(|device| Path::new("/dev").join(device.file_name())).collect()
}

/// Detaches loop devices.
pub(crate) fn detach(devices: Vec<PathBuf>) {
    for device in devices {
        // The next file that is bound to it would be read-only too.
        let _ = Command::new("/sbin/blockdev").arg("--setrw").arg(&device).stderr(Stdio::null()).status();
        let _ = Command::new("/sbin/losetup").arg("-d").arg(device).stderr(Stdio::null()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_escaped_characters_are_read() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(br"/a\"), Path::new("/a\\"));
    }

    #[test]
    fn the_root_is_a_mount() {
        assert!(mounts_beneath(Path::new("/")).unwrap().contains(&"/".into()));
    }
}
