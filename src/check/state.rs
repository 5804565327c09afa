//! The state folder.

use std::path::Path;

use dunnage_driver_api::Finding;
use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;

use crate::config::Config;

/// `f_type` of statfs(2).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAYFS: u64 = 0x794c_7630;

/// Whether a host runs on the state folder, and what was found.
pub(super) fn findings(config: &Config) -> (bool, Vec<Finding>) {
    let locked = is_locked(&config.lock_file());
    let mut findings = vec![writable(&config.state)];
    findings.extend(fleeting(&config.state));
    if locked {
        findings.push(Finding::ok(format_args!("a running host has locked {}", config.state.display())));
    }
    (locked, findings)
}

fn writable(state: &Path) -> Finding {
    let shown = state.display();
    // Where it is missing it is made, in the first folder above that is there.
    let existing = existing(state);
    if !existing.is_dir() {
        return Finding::error(format_args!("{} is no folder", existing.display()), "set `state` to a folder");
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if existing == state => Finding::ok(format_args!("{shown} can be written")),
        Ok(()) => Finding::ok(format_args!("{shown} will be made in {}", existing.display())),
        Err(error) => Finding::error(
            format_args!("{shown} cannot be written: {error}"),
            "set `state` to a folder that lasts and can be written; in a container mount one from the host",
        ),
    }
}

/// The folder, where it is missing the first above that is there: it is made in that one.
fn existing(state: &Path) -> &Path {
    state.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

/// A warning where the folder does not last.
fn fleeting(state: &Path) -> Option<Finding> {
    let goes = goes_with(rustix::fs::statfs(existing(state)).ok()?.f_type as u64)?;
    Some(Finding::warning(
        format_args!(
            "{} is lost with {goes}: what was made for pods and not deleted then stays for ever",
            state.display()
        ),
        "set `state` to a folder on a disk; in a container mount one from the host",
    ))
}

/// With what the files of this kind of file system (statfs(2)) go.
fn goes_with(kind: u64) -> Option<&'static str> {
    match kind {
        TMPFS | RAMFS => Some("the memory of the node, at a restart"),
        OVERLAYFS => Some("the container"),
        _ => None,
    }
}

/// Whether somebody holds the lock. It is shared here for an instant only, and never made.
fn is_locked(file: &Path) -> bool {
    std::fs::File::open(file)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn a_lock_is_seen_and_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_locked(&path) && !path.exists());
        let holder = std::fs::File::create(&path).unwrap();
        assert!(!is_locked(&path));
        flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_locked(&path));
    }

    #[test]
    fn a_state_folder_in_memory_is_told_to_be_lost() {
        let finding = fleeting(Path::new("/dev/shm/dunnage/none")).unwrap();
        assert!(finding.severity == Severity::Warning && finding.text.contains("memory"), "{finding:?}");
        assert_eq!((goes_with(OVERLAYFS), goes_with(0xef53)), (Some("the container"), None));
    }

    #[test]
    fn a_state_folder_that_can_never_be_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(writable(&file.path().join("state")).severity, Severity::Error);
        assert_eq!(writable(Path::new("/proc/dunnage")).severity, Severity::Ok);
    }
}
