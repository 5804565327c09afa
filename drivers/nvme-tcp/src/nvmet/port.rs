//! The port that the subsystems are linked to: the kernel listens on it while one is.

use std::io::ErrorKind::AlreadyExists;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Error, Result};

use super::attributes::{folder, list, read, settle, unlink};

/// Ports are numbers, which are ours to choose.
const NUMBERS: u16 = 0xffff;

/// The port with one address.
pub(super) struct Port {
    ports: PathBuf,
    address: SocketAddr,
}

impl Port {
    /// The port of this address of the target below `root`.
    pub(super) fn new(root: &Path, address: SocketAddr) -> Self {
        Self { ports: root.join("ports"), address }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this subsystem can be reached by it.
    pub(super) fn has(&self, nqn: &str) -> Result<bool> {
        Ok(self.find()?.is_some_and(|port| port.join("subsystems").join(nqn).is_symlink()))
    }

    /// Brings a subsystem within reach.
    pub(super) fn link(&self, subsystem: &Path, nqn: &str) -> Result<()> {
        let port = match self.find()? {
            Some(port) => port,
            None => self.make()?,
        };
        let links = port.join("subsystems");
        folder(&links)?;
        match symlink(subsystem, links.join(nqn)) {
            Err(error) if error.kind() != AlreadyExists => Err(Error::io(
                format!(
                    "the kernel's NVMe target cannot listen on {}: the address must be one of this node, the port free, \
                     and the module nvmet-tcp loaded",
                    self.address
                ),
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Takes a subsystem out of reach, of whatever port.
    pub(super) fn unlink_everywhere(root: &Path, nqn: &str) -> Result<()> {
        let ports = root.join("ports");
        list(&ports)?.iter().try_for_each(|port| unlink(&ports.join(port).join("subsystems").join(nqn)))
    }

    /// What the attributes of the port say.
    fn attributes(&self) -> [(&'static str, String); 4] {
        [
            ("addr_trtype", "tcp".to_owned()),
            ("addr_adrfam", if self.address.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned()),
            ("addr_trsvcid", self.address.port().to_string()),
            ("addr_traddr", self.address.ip().to_string()),
        ]
    }

    /// The port of this address, by whomever it was made.
    fn find(&self) -> Result<Option<PathBuf>> {
        for number in list(&self.ports)? {
            let port = self.ports.join(number);
            let mut is_it = true;
            for (name, value) in self.attributes() {
                is_it = is_it && read(&port.join(name))?.as_deref() == Some(value.as_str());
            }
            if is_it {
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    /// Makes the port, or goes on with one that was cut off: its address is written last.
    fn make(&self) -> Result<PathBuf> {
        let first = self.address.port();
        for number in (0..NUMBERS).map(|more| first.wrapping_add(more)) {
            let port = self.ports.join(number.to_string());
            folder(&port)?;
            // That of another address.
            if read(&port.join("addr_traddr"))?.is_some_and(|address| !address.is_empty()) {
                continue;
            }
            for (name, value) in self.attributes() {
                settle(&port.join(name), &value)?;
            }
            return Ok(port);
        }
        Err(Error::precondition("the kernel's NVMe target has no port number left"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_port_is_found_made_and_gone_on_with_by_its_address() {
        let root = tempfile::tempdir().unwrap();
        let (ports, subsystem) = (root.path().join("ports"), root.path().join("subsystems/a"));
        fs::create_dir_all(&subsystem).unwrap();
        fs::create_dir(&ports).unwrap();
        // Another's, of the number that ours would have; and what is left of ours, cut off.
        for (name, value) in [("addr_traddr", "10.0.0.2"), ("addr_trtype", "tcp"), ("addr_trsvcid", "4420")] {
            fs::create_dir_all(ports.join("4420")).unwrap();
            fs::write(ports.join("4420").join(name), value).unwrap();
        }
        fs::create_dir(ports.join("4421")).unwrap();
        fs::write(ports.join("4421/addr_trtype"), "tcp\n").unwrap();
        let port = Port::new(root.path(), "10.0.0.1:4420".parse().unwrap());
        assert!(!port.has("a").unwrap());
        for _ in 0..2 {
            port.link(&subsystem, "a").unwrap();
            assert!(port.has("a").unwrap());
        }
        assert_eq!(fs::read_to_string(ports.join("4421/addr_traddr")).unwrap(), "10.0.0.1");
        assert_eq!(fs::read_dir(&ports).unwrap().count(), 2);
        for _ in 0..2 {
            Port::unlink_everywhere(root.path(), "a").unwrap();
            assert!(!port.has("a").unwrap());
        }
    }
}
