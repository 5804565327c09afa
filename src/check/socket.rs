//! The sockets of the plugins.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dunnage_driver_api::Finding;

/// Looks whether somebody else serves this socket. `ours` says whether a host of this configuration runs, so that it
/// may well be that one.
pub(super) fn finding(socket: &Path, ours: bool) -> Finding {
    let shown = socket.display();
    let metadata = match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Finding::ok(format_args!("{shown} is free"));
        }
        Err(error) => {
            let denied = error.kind() == ErrorKind::PermissionDenied;
            let remedy = if denied { "run this as root" } else { "see to `sockets` and `csi_name`" };
            return Finding::error(format_args!("cannot look at {shown}: {error}"), remedy);
        }
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Finding::error(format_args!("{shown} is no socket"), "remove it, or choose another `csi_name`");
    }
    match UnixStream::connect(socket) {
        Ok(_) if ours => Finding::ok(format_args!("{shown} is served by the running host")),
        Ok(_) => Finding::error(
            format_args!("{shown} is served by another process"),
            "stop that process, or choose another `csi_name`",
        ),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Finding::ok(format_args!("{shown} was left behind by a process that ended, and will be replaced"))
        }
        Err(error) => Finding::error(format_args!("cannot connect to {shown}: {error}"), "run this as root"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn a_socket_is_taken_while_somebody_accepts_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        assert_eq!(finding(&socket, false).severity, Severity::Ok);
        let listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(finding(&socket, false).severity, Severity::Error);
        assert_eq!(finding(&socket, true).severity, Severity::Ok);
        drop(listener);
        assert_eq!(finding(&socket, false).severity, Severity::Ok);
        std::fs::remove_file(&socket).unwrap();
        let below_a_file = folder.path().join("file/csi.sock");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(finding(&below_a_file, true).remedy, "see to `sockets` and `csi_name`");
        std::fs::write(&socket, "").unwrap();
        assert_eq!(finding(&socket, true).severity, Severity::Error);
    }
}
