//! The port that the subsystems are linked to: the kernel listens on it while one is.

use std::fs;
use std::io::ErrorKind::AlreadyExists;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dunnage_driver_api::{Error, Result};

use super::attributes::{folder, list, read, settle, unlink};

/// Ports are numbers, which are ours to choose.
const NUMBERS: u16 = 0xffff;

/// Of several backends too one at a time looks for a port, makes it and listens on it: of two ports with one address the
/// kernel would listen on one alone.
static LINKING: Mutex<()> = Mutex::new(());

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
        let _alone = LINKING.lock().unwrap_or_else(PoisonError::into_inner);
        let (port, is_new) = match self.find()? {
            Some(port) => (port, false),
            None => (self.make()?, true),
        };
        let links = port.join("subsystems");
        let linked = folder(&links).and_then(|()| match symlink(subsystem, links.join(nqn)) {
            Err(error) if error.kind() != AlreadyExists => Err(Error::io(
                format!(
                    "the kernel's NVMe target cannot listen on {}: the address must be one of this node, the port free, \
                     and the module nvmet-tcp loaded",
                    self.address
                ),
                error,
            )),
            _ => Ok(()),
        });
        if linked.is_err() && is_new {
            // The first error says more than that a port which nobody listens on stays.
            let _ = fs::remove_dir(&port);
        }
        linked
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

    /// The port of this address, by whomever it was made; of several the one that the kernel listens on.
    fn find(&self) -> Result<Option<PathBuf>> {
        let mut found = None;
        for number in list(&self.ports)? {
            let port = self.ports.join(number);
            let mut is_it = true;
            for (name, value) in self.attributes() {
                is_it = is_it && read(&port.join(name))?.as_deref() == Some(value.as_str());
            }
            if is_it && !list(&port.join("subsystems"))?.is_empty() {
                return Ok(Some(port));
            }
            found = found.or_else(|| is_it.then_some(port));
        }
        Ok(found)
    }

    /// Makes the port, or goes on with one that was cut off: its address is written last.
    fn make(&self) -> Result<PathBuf> {
        let first = self.address.port();
        for number in (0..NUMBERS).map(|more| first.wrapping_add(more)) {
            let port = self.ports.join(number.to_string());
            folder(&port)?;
            if !self.may_be_ours(&port)? {
                continue;
            }
            for (name, value) in self.attributes() {
                settle(&port.join(name), &value)?;
            }
            return Ok(port);
        }
        Err(Error::precondition("the kernel's NVMe target has no port number left"))
    }

    /// Whether nothing was said of a port but what we say of ours: any other is somebody else's, who may not be done with it.
    fn may_be_ours(&self, port: &Path) -> Result<bool> {
        for (name, value) in self.attributes() {
            if read(&port.join(name))?.is_some_and(|said| !said.is_empty() && said != value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_port_that_is_listened_on_is_taken_and_one_that_somebody_else_is_making_is_not() {
        let root = tempfile::tempdir().unwrap();
        let (ports, subsystem) = (root.path().join("ports"), root.path().join("subsystems/a"));
        fs::create_dir_all(&subsystem).unwrap();
        let made = |number: &str, pairs: &[(&str, &str)]| {
            fs::create_dir_all(ports.join(number)).unwrap();
            pairs.iter().for_each(|(name, value)| fs::write(ports.join(number).join(name), value).unwrap());
        };
        let port = Port::new(root.path(), "10.0.0.1:4420".parse().unwrap());
        // Somebody else has not come to its address yet.
        made("4420", &[("addr_trtype", "rdma"), ("addr_adrfam", "\n"), ("addr_trsvcid", ""), ("addr_traddr", "\n")]);
        port.link(&subsystem, "a").unwrap();
        assert_eq!(fs::read_to_string(ports.join("4420/addr_trtype")).unwrap(), "rdma");
        assert!(ports.join("4421/subsystems/a").is_symlink());
        // Two of one address, as two who looked at once have left them.
        for number in ["1", "9999"] {
            let all = port.attributes();
            made(number, &all.each_ref().map(|(name, value)| (*name, value.as_str())));
        }
        port.link(&subsystem, "b").unwrap();
        assert!(ports.join("4421/subsystems/b").is_symlink());
    }

    #[test]
    fn ports_that_many_make_at_once_are_one() {
        let root = tempfile::tempdir().unwrap();
        let (ports, subsystem) = (root.path().join("ports"), root.path().join("subsystems/a"));
        fs::create_dir_all(&subsystem).unwrap();
        fs::create_dir(&ports).unwrap();
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let (root, subsystem) = (root.path(), &subsystem);
                scope.spawn(move || {
                    Port::new(root, "10.0.0.1:4420".parse().unwrap()).link(subsystem, name).unwrap();
                });
            }
        });
        assert_eq!(fs::read_dir(&ports).unwrap().count(), 1);
        assert_eq!(fs::read_dir(ports.join("4420/subsystems")).unwrap().count(), 4);
    }
}
