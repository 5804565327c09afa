//! The kernel's initiator: connections are made by one write to `/dev/nvme-fabrics`, and sysfs tells of all there are,
//! whoever made them.

mod connect;
mod sysfs;
mod turn;

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) use connect::Options;
use connect::{connect, knock};
use sysfs::{Controller, Namespace};
use turn::Turn;

use crate::wanted::{NamespaceId, Wanted};

/// Nothing in sysfs can be waited for.
const AGAIN: Duration = Duration::from_millis(20);
/// How often a target is asked again for a namespace that is not there.
const RESCAN: Duration = Duration::from_secs(1);
/// How long a new size is waited for: the target has told of it, or is asked anew.
const GROWN: Duration = Duration::from_secs(3);

/// What undoes a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connected {
    /// The subsystem.
    pub(crate) nqn: String,
    /// The namespace in it that the volume is.
    pub(crate) namespace: NamespaceId,
    /// By what name this node connects: a connection by another one is somebody else's.
    pub(crate) host: String,
}

/// The kernel's initiator.
#[derive(Debug, Clone)]
pub(crate) struct Initiator {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Initiator {
    fn default() -> Self {
        Self::new("/sys".as_ref(), "/dev".as_ref())
    }
}

impl Initiator {
    /// What these folders tell of.
    fn new(sys: &Path, dev: &Path) -> Self {
        Self { sys: sys.to_owned(), dev: dev.to_owned() }
    }

    /// Whether the kernel has it.
    pub(crate) fn is_there(&self) -> bool {
        self.dev.join("nvme-fabrics").exists()
    }

    /// The device of a namespace, once this node is connected to its subsystem; with its name.
    ///
    /// # Errors
    /// FailedPrecondition where the target cannot be reached or does not let this node in, and where what is found is not
    /// the namespace that is wanted.
    pub(crate) fn bring(&self, wanted: &Wanted, options: &Options, until: Instant) -> Result<(File, PathBuf)> {
        let _turn = Turn::take(&self.sys, &wanted.nqn, until)?;
        if self.is_connected(wanted, until)? {
            return self.find(wanted, until);
        }
        knock(wanted.target, until)?;
        let is_ours = connect(&self.dev.join("nvme-fabrics"), wanted, options)?;
        self.find(wanted, until).inspect_err(|_| {
            if is_ours {
                // Nobody else uses what was connected just now. The first error says more than that it stays.
                let _ = self.end(&wanted.nqn, options.host(), until);
            }
        })
    }

    /// The device of a namespace of a subsystem that this node is connected to.
    fn find(&self, wanted: &Wanted, until: Instant) -> Result<(File, PathBuf)> {
        let mut rescan = Instant::now() + RESCAN;
        loop {
            let found = Namespace::all_of(&self.sys, &wanted.nqn)?;
            let matching: Vec<_> = found.iter().filter(|one| one.is(wanted.namespace)).collect();
            match matching.as_slice() {
                [one] => {
                    if let Some(opened) = self.open(one, wanted.namespace)? {
                        return Ok(opened);
                    }
                }
                [] => {}
                [_, _, ..] => return Err(Error::precondition("two namespaces of the subsystem have one identity")),
            }
            if Instant::now() >= until {
                return Err(not_found(wanted, &found));
            }
            if Instant::now() >= rescan {
                // A namespace that has become another one is taken away first, and shown as that when it is looked for again.
                self.rescan(&wanted.nqn)?;
                rescan = Instant::now() + RESCAN;
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn rescan(&self, nqn: &str) -> Result<()> {
        Controller::all_of(&self.sys, nqn)?.iter().try_for_each(|controller| controller.rescan(&self.sys))
    }

    /// Whether there is a connection already; one that is being made again, or is ending, is waited for.
    fn is_connected(&self, wanted: &Wanted, until: Instant) -> Result<bool> {
        loop {
            let controllers = Controller::all_of(&self.sys, &wanted.nqn)?;
            if controllers.iter().any(|controller| controller.state == "live") {
                return Ok(true);
            }
            let Some(controller) = controllers.first() else { return Ok(false) };
            if Instant::now() >= until {
                return Err(Error::precondition(format!(
                    "the connection {} to the target of the volume is {}: see to the network, and to the target at {}",
                    controller.name, controller.state, wanted.target
                ))
                .with("nqn", &wanted.nqn)
                .retry(true));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Opens the device of a namespace and proves that it is that one's; nothing where it is not there yet, or any more.
    fn open(&self, namespace: &Namespace, wanted: NamespaceId) -> Result<Option<(File, PathBuf)>> {
        let path = self.dev.join(&namespace.kernel);
        let device = match File::open(&path) {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::NODEV)) => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot open {}", path.display()), error)),
        };
        let stat = rustix::fs::fstat(&device)
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        let number = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        // Asked again while it is open, when its number stays its own.
        let now = Namespace::read(&self.sys, &namespace.kernel)?;
        let is_it = now.is_some_and(|now| now.number == number && now.nqn == namespace.nqn && now.is(wanted));
        Ok(is_it.then_some((device, path)))
    }

    /// Disconnects from the subsystem of a namespace that nobody on this node uses any more. Succeeds where there is no
    /// connection.
    ///
    /// It stays where any other namespace is there, which is another volume's or another user's, and where somebody else has
    /// made it.
    ///
    /// # Errors
    /// FailedPrecondition where the namespace is in use.
    pub(crate) fn disconnect(&self, ended: &Connected, until: Instant) -> Result<()> {
        let _turn = Turn::take(&self.sys, &ended.nqn, until)?;
        let is_other = |there: &Namespace| !there.is(ended.namespace);
        if Namespace::all_of(&self.sys, &ended.nqn)?.iter().any(is_other) {
            return Ok(());
        }
        self.end(&ended.nqn, &ended.host, until)
    }

    /// The connections to a subsystem that were made by this name.
    fn own(&self, nqn: &str, host: &str) -> Result<Vec<Controller>> {
        let mut controllers = Controller::all_of(&self.sys, nqn)?;
        controllers.retain(|controller| controller.host.as_deref() == Some(host));
        Ok(controllers)
    }

    /// Ends the connections to a subsystem that were made by this name, whose namespaces nobody may have in use.
    fn end(&self, nqn: &str, host: &str, until: Instant) -> Result<()> {
        let own = self.own(nqn, host)?;
        if own.is_empty() {
            return Ok(());
        }
        for namespace in &Namespace::all_of(&self.sys, nqn)? {
            let path = self.dev.join(&namespace.kernel);
            let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
            let opened = File::options().read(true).custom_flags(exclusive).open(&path);
            if opened.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::BUSY)) {
                return Err(Error::precondition(format!(
                    "{} is still in use on this node: unmount it everywhere, and end programs that hold it",
                    path.display()
                ))
                .retry(true));
            }
        }
        for controller in own {
            controller.delete(&self.sys)?;
        }
        while !self.own(nqn, host)?.is_empty() {
            if Instant::now() >= until {
                return Err(Error::precondition("the kernel has not ended the connection yet")
                    .with("nqn", nqn)
                    .retry(true));
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }

    /// Has the kernel ask how large the namespaces of a subsystem are now, and waits for what it says.
    ///
    /// # Errors
    /// FailedPrecondition where there is none, and where the target cannot be reached now.
    pub(crate) fn refresh(&self, nqn: &str, until: Instant) -> Result<()> {
        let sizes = || -> Result<Vec<String>> {
            Ok(Namespace::all_of(&self.sys, nqn)?.into_iter().map(|namespace| namespace.sectors).collect())
        };
        let before = sizes()?;
        if before.is_empty() {
            return Err(Error::precondition("the volume's device is gone: unstage the volume and stage it again"));
        }
        let controllers = Controller::all_of(&self.sys, nqn)?;
        if !controllers.iter().any(|controller| controller.state == "live") {
            return Err(Error::precondition(
                "the target of the volume cannot be reached, so that it does not tell how large the volume is: see to the \
                 network and to that node",
            )
            .with("nqn", nqn)
            .retry(true));
        }
        self.rescan(nqn)?;
        let until = until.min(Instant::now() + GROWN);
        // The kernel does not tell when it is done; it may have known the new size before.
        while sizes()? == before && Instant::now() < until {
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

fn not_found(wanted: &Wanted, found: &[Namespace]) -> Error {
    let others: Vec<_> = found.iter().map(|one| format!("{} ({})", one.kernel, one.identity())).collect();
    let there = others.join(", ");
    let what = if there.is_empty() { "none has appeared".to_owned() } else { format!("there are {there}") };
    Error::precondition(format!(
        "the target at {} has no namespace with {} for this node: {what}; nothing of another one is touched",
        wanted.target, wanted.namespace
    ))
    .with("nqn", &wanted.nqn)
    .retry(true)
}

#[cfg(test)]
mod tests;
