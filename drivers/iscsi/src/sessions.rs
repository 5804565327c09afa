//! Sessions and their logical units as sysfs tells of them, whoever logged in.

use std::fs;
use std::io::{self, ErrorKind::NotFound};
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Error, Result};
use rustix::io::Errno;

use crate::wanted::UnitId;

/// A session with a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// `session3`.
    pub(crate) name: String,
    /// `LOGGED_IN`, `FAILED`, `FREE`.
    pub(crate) state: String,
    /// As whom this node is logged in.
    pub(crate) initiator: String,
    /// The folder above its units.
    folder: PathBuf,
}

/// A logical unit that has a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `sdb`.
    pub(crate) kernel: String,
    /// Its number at the target.
    pub(crate) lun: u64,
    /// The number of its device.
    pub(crate) number: String,
    /// Its size in sectors of 512 bytes.
    pub(crate) sectors: String,
    /// VPD page 0x80 without its head.
    serial: String,
    /// VPD page 0x83, as the kernel tells it.
    wwid: String,
    /// Its folder.
    folder: PathBuf,
}

impl Session {
    /// Those with a target.
    ///
    /// # Errors
    /// Where sysfs cannot be read.
    pub(crate) fn all_of(sys: &Path, iqn: &str) -> Result<Vec<Self>> {
        let sessions = sys.join("class/iscsi_session");
        let mut found = Vec::new();
        for name in names(&sessions)? {
            let session = sessions.join(&name);
            if read(&session.join("targetname"))?.as_deref() != Some(iqn) {
                continue;
            }
            let state = read(&session.join("state"))?;
            let initiator = read(&session.join("initiatorname"))?.unwrap_or_default();
            // Gone meanwhile.
            if let (Some(state), Ok(folder)) = (state, session.join("device").canonicalize()) {
                found.push(Self { name, state, initiator, folder });
            }
        }
        Ok(found)
    }

    /// Its units that have a device.
    ///
    /// # Errors
    /// Where sysfs cannot be read.
    pub(crate) fn units(&self) -> Result<Vec<Unit>> {
        let mut found = Vec::new();
        for target in names(&self.folder)?.into_iter().filter(|name| name.starts_with("target")) {
            let target = self.folder.join(target);
            for address in names(&target)? {
                let Some(lun) = address.rsplit(':').next().and_then(|lun| lun.parse().ok()) else { continue };
                let folder = target.join(&address);
                for kernel in names(&folder.join("block"))? {
                    found.extend(Unit::read(&folder, &kernel, lun)?);
                }
            }
        }
        Ok(found)
    }

    /// Has the kernel look for units that it does not know yet.
    pub(crate) fn scan(&self, sys: &Path) {
        let host = self.folder.parent().and_then(Path::file_name).map(PathBuf::from).unwrap_or_default();
        // Where it fails the unit does not come, which is told.
        let _ = fs::write(sys.join("class/scsi_host").join(host).join("scan"), "- - -");
    }
}

impl Unit {
    fn read(folder: &Path, kernel: &str, lun: u64) -> Result<Option<Self>> {
        let block = folder.join("block").join(kernel);
        let (Some(number), Some(sectors)) = (read(&block.join("dev"))?, read(&block.join("size"))?) else {
            return Ok(None);
        };
        let page = match fs::read(folder.join("vpd_pg80")) {
            Err(error) if error.kind() == NotFound => Vec::new(),
            page => page.map_err(|error| Error::io("cannot read the serial number of a unit", error))?,
        };
        let serial = String::from_utf8_lossy(page.get(4..).unwrap_or_default()).trim_matches(['\0', ' ']).to_owned();
        let wwid = read(&folder.join("wwid"))?.unwrap_or_default();
        Ok(Some(Self { kernel: kernel.to_owned(), lun, number, sectors, serial, wwid, folder: folder.to_owned() }))
    }

    /// The same unit as it is now; nothing where it is gone.
    ///
    /// # Errors
    /// Where sysfs cannot be read.
    pub(crate) fn again(&self) -> Result<Option<Self>> {
        Self::read(&self.folder, &self.kernel, self.lun)
    }

    /// Whether it says of itself that it is this one.
    pub(crate) fn is(&self, wanted: &UnitId) -> bool {
        match wanted {
            UnitId::Serial(serial) => self.serial == *serial,
            UnitId::Wwid(wwid) => self.wwid == *wwid,
        }
    }

    /// What it says of itself.
    pub(crate) fn identity(&self) -> String {
        format!("LUN {}, serial {:?}, {}", self.lun, self.serial, self.wwid)
    }

    /// Has the kernel ask for its size.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(crate) fn rescan(&self) -> Result<()> {
        let path = self.folder.join("rescan");
        match fs::write(&path, "1") {
            Err(error) if error.kind() != NotFound => Err(Error::io(format!("cannot write {}", path.display()), error)),
            _ => Ok(()),
        }
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let cannot = |error| Error::io(format!("cannot list {}", folder.display()), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(cannot)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == NotFound => Ok(None),
        // What a unit says that goes while it is asked.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NODEV | Errno::NXIO)) => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A session with one unit, as the kernel shows it.
    pub(crate) fn fake(sys: &Path, session: &str, iqn: &str, lun: u64, serial: &str) {
        let device = sys.join("devices/platform/host2").join(session);
        let class = sys.join("class/iscsi_session").join(session);
        let unit = device.join(format!("target2:0:0/2:0:0:{lun}"));
        let block = unit.join(format!("block/sd{lun}"));
        fs::create_dir_all(&block).unwrap();
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("targetname"), format!("{iqn}\n")).unwrap();
        fs::write(class.join("state"), "LOGGED_IN\n").unwrap();
        fs::write(class.join("initiatorname"), "iqn.2026-01.dev.dunnage:node:n\n").unwrap();
        let _ = std::os::unix::fs::symlink(&device, class.join("device"));
        fs::write(block.join("dev"), "8:16\n").unwrap();
        fs::write(block.join("size"), "2048\n").unwrap();
        let page = [&[0, 0x80, 0, serial.len() as u8], serial.as_bytes()].concat();
        fs::write(unit.join("vpd_pg80"), page).unwrap();
        fs::write(unit.join("wwid"), "naa.6001405\n").unwrap();
    }

    #[test]
    fn sessions_and_units_are_found_by_their_target_and_by_what_they_say_of_themselves() {
        let sys = tempfile::tempdir().unwrap();
        fake(sys.path(), "session1", "iqn.a", 0, "one");
        fake(sys.path(), "session1", "iqn.a", 3, "two");
        fake(sys.path(), "session2", "iqn.b", 0, "three");
        let sessions = Session::all_of(sys.path(), "iqn.a").unwrap();
        assert_eq!((sessions.len(), sessions[0].state.as_str()), (1, "LOGGED_IN"));
        let units = sessions[0].units().unwrap();
        assert_eq!(units.len(), 2);
        let found = units.iter().find(|unit| unit.is(&UnitId::Serial("two".into()))).unwrap();
        assert_eq!((found.kernel.as_str(), found.lun), ("sd3", 3));
        assert!(found.is(&UnitId::Wwid("naa.6001405".into())) && !found.is(&UnitId::Serial("tw".into())));
        assert_eq!(found.again().unwrap().as_ref(), Some(found));
        assert!(Session::all_of(sys.path(), "iqn.c").unwrap().is_empty());
    }
}
