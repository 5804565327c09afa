//! One host to a state folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use dunnage_driver_api::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The right to use a state folder, until this is dropped or the process ends in any way.
#[derive(Debug)]
pub struct StateLock {
    /// Holds the kernel's lock. The file stays: removing it would let two processes hold two files.
    _file: File,
}

impl StateLock {
    /// Locks `<state>/lock`, making the folder (mode 0700) and the file where they are missing. The file holds the
    /// number of this process, for whoever comes second.
    ///
    /// # Errors
    /// [`FailedPrecondition`](dunnage_driver_api::ErrorKind::FailedPrecondition), naming the process, where another
    /// one holds it.
    pub fn take(state: &Path) -> Result<Self> {
        let path = state.join("lock");
        let failed = |what: &str, error| Error::io(format!("cannot {what} {}", path.display()), error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(|error| Error::io(format!("cannot make the state folder {}", state.display()), error))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| failed("open", error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Without a number the message still says what to do.
                let _ = file.read_to_string(&mut holder);
                return Err(Error::precondition(format!(
                    "the state folder {} is in use by process {}: stop it or configure another folder",
                    state.display(),
                    if holder.trim().is_empty() { "(unknown)" } else { holder.trim() }
                )));
            }
            locked => locked.map_err(|error| failed("lock", error.into()))?,
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| failed("write", error))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_host_on_a_state_folder_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("var/dunnage");
        let first = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        assert_eq!(error.kind(), dunnage_driver_api::ErrorKind::FailedPrecondition);
        let process = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&process) && error.to_string().contains(state.to_str().unwrap()), "{error}");
        drop(first);
        StateLock::take(&state).unwrap();
    }
}
