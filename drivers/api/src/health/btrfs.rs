//! The devices of a btrfs, as the kernel shows them (Linux 5.14).

use std::fs;
use std::os::fd::AsFd;

use super::ioctl;

/// A device of a btrfs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number in the file system.
    pub(super) id: u64,
    pub(super) missing: bool,
    /// What is counted of its errors, until somebody sets that to 0; kept over mounts.
    pub(super) errors: Vec<(String, u64)>,
}

/// The devices of the btrfs that a file lies on, in their order; none where the kernel does not tell.
pub(super) fn devices(file: impl AsFd) -> Vec<Device> {
    let Ok(id) = ioctl::btrfs_id(file) else { return Vec::new() };
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    let entries = fs::read_dir(format!("/sys/fs/btrfs/{id}/devinfo")).into_iter().flatten().flatten();
    let device = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let missing = fs::read(entry.path().join("missing")).is_ok_and(|text| text == b"1\n");
        let errors = fs::read_to_string(entry.path().join("error_stats")).map(|text| counts(&text));
        Some(Device { id, missing, errors: errors.unwrap_or_default() })
    };
    let mut devices: Vec<_> = entries.filter_map(device).collect();
    devices.sort_by_key(|device| device.id);
    devices
}

/// Lines of a name and a count; anything else (`invalid`, before the counts are read) says nothing.
fn counts(text: &str) -> Vec<(String, u64)> {
    let count = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_not_read_yet_counts_nothing() {
        assert_eq!(counts("invalid\n"), []);
        assert_eq!(counts("write_errs 0\nread_errs 7\n"), [("write_errs".into(), 0), ("read_errs".into(), 7)]);
    }
}
