//! Controllers and namespaces as sysfs tells of them.

use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::Path;

use dunnage_driver_api::{Error, Result};
use rustix::io::Errno;

use crate::names::Uuid;
use crate::wanted::NamespaceId;

/// A connection to a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    /// `nvme3`.
    pub(super) name: String,
    /// `live`, `connecting`, `deleting`, ...
    pub(super) state: String,
    /// The name by which the node connected, where this kernel tells.
    pub(super) host: Option<String>,
}

impl Controller {
    /// Those that are connected to a subsystem.
    pub(super) fn all_of(sys: &Path, nqn: &str) -> Result<Vec<Self>> {
        let folder = sys.join("class/nvme");
        let mut found = Vec::new();
        for name in names(&folder)? {
            if read(&folder.join(&name).join("subsysnqn"))?.as_deref() == Some(nqn)
                && let Some(state) = read(&folder.join(&name).join("state"))?
            {
                let host = read(&folder.join(&name).join("hostnqn"))?;
                found.push(Self { name, state, host });
            }
        }
        Ok(found)
    }

    /// Ends it, and waits for that.
    pub(super) fn delete(&self, sys: &Path) -> Result<()> {
        self.write(sys, "delete_controller")
    }

    /// Has it ask for its namespaces anew.
    pub(super) fn rescan(&self, sys: &Path) -> Result<()> {
        self.write(sys, "rescan_controller")
    }

    fn write(&self, sys: &Path, attribute: &str) -> Result<()> {
        let path = sys.join("class/nvme").join(&self.name).join(attribute);
        match fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"1"))
        {
            Err(error) if !is_gone(&error) => Err(Error::io(format!("cannot write {}", path.display()), error)),
            _ => Ok(()),
        }
    }
}

/// A namespace that has a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace {
    /// `nvme3n1`.
    pub(super) kernel: String,
    /// Its subsystem.
    pub(super) nqn: String,
    /// The number of its device.
    pub(super) number: String,
    /// Its size in sectors of 512 bytes.
    pub(super) sectors: String,
    uuid: Option<Uuid>,
    nguid: Option<Uuid>,
}

impl Namespace {
    /// Those of a subsystem.
    pub(super) fn all_of(sys: &Path, nqn: &str) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for kernel in names(&sys.join("class/block"))? {
            if is_namespace(&kernel)
                && let Some(namespace) = Self::read(sys, &kernel)?.filter(|namespace| namespace.nqn == nqn)
            {
                found.push(namespace);
            }
        }
        Ok(found)
    }

    /// What there is under this name now.
    pub(super) fn read(sys: &Path, kernel: &str) -> Result<Option<Self>> {
        let folder = sys.join("class/block").join(kernel);
        let (Some(nqn), Some(number), Some(sectors)) =
            (read(&folder.join("device/subsysnqn"))?, read(&folder.join("dev"))?, read(&folder.join("size"))?)
        else {
            return Ok(None);
        };
        let id =
            |name: &str| -> Result<Option<Uuid>> { Ok(read(&folder.join(name))?.and_then(|text| text.parse().ok())) };
        Ok(Some(Self { kernel: kernel.to_owned(), nqn, number, sectors, uuid: id("uuid")?, nguid: id("nguid")? }))
    }

    /// Whether it is this one.
    pub(super) fn is(&self, wanted: NamespaceId) -> bool {
        match wanted {
            NamespaceId::Uuid(uuid) => self.uuid == Some(uuid),
            NamespaceId::Nguid(nguid) => self.nguid == Some(nguid),
        }
    }

    /// What it says of itself.
    pub(super) fn identity(&self) -> String {
        let shown = |id: Option<Uuid>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        format!("UUID {}, NGUID {}", shown(self.uuid), shown(self.nguid))
    }
}

/// `nvme3n1`, and neither a path to it (`nvme3c1n1`) nor a partition (`nvme3n1p1`).
fn is_namespace(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(one, two)| is_number(one) && is_number(two))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let cannot = |error| Error::io(format!("cannot list {}", folder.display()), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<std::io::Result<_>>().map_err(cannot)
}

/// What an attribute says; nothing where it, or what it is of, is gone.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == NotFound || matches!(Errno::from_io_error(error), Some(Errno::NODEV | Errno::NXIO | Errno::NOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_namespaces_are_devices_of_volumes() {
        for (name, is) in [
            ("nvme0n1", true),
            ("nvme12n34", true),
            ("nvme0c1n1", false),
            ("nvme0n1p1", false),
            ("nvme0", false),
            ("nvmen1", false),
            ("sda", false),
        ] {
            assert_eq!(is_namespace(name), is, "{name}");
        }
    }
}
