//! Files, folders and links of configfs.

use std::io::ErrorKind::NotFound;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use dunnage_driver_api::{Error, Result};

/// Makes a folder where there is none.
pub(super) fn folder(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot("make", path)(error)),
        _ => Ok(()),
    }
}

/// Whether there is something at a path; what cannot be seen is no "no".
pub(super) fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(cannot("look at", path))
}

/// The names in a folder; none where it is not there.
pub(super) fn list(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot("list", path))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(cannot("list", path))
}

/// What an attribute has; nothing where it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == NotFound => Ok(None),
        text => Ok(Some(text.map_err(cannot("read", path))?.trim_end().to_owned())),
    }
}

/// Writes an attribute, by one call of the kernel.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(|error| cannot("write", path)(error).with("value", value))
}

/// Writes an attribute where it has another value: some cannot be written once they are used.
pub(super) fn settle(path: &Path, value: &str) -> Result<()> {
    if read(path)?.as_deref() == Some(value) { Ok(()) } else { write(path, value) }
}

/// Removes a link where there is one.
pub(super) fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != NotFound => Err(cannot("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes an attribute whose value nobody is to see.
pub(super) fn write_secret(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(cannot("write", path))
}

/// Makes a link where there is none.
pub(super) fn link(to: &Path, path: &Path) -> Result<()> {
    match symlink(to, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot("link", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder where there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != NotFound => Err(cannot("remove", path)(error)),
        _ => Ok(()),
    }
}

fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |error| Error::io(format!("cannot {what} {}", path.display()), error)
}
