//! The kernel's target, through configfs: a subsystem for each export, on one port.
//!
//! A subsystem is made whole before it is linked to the port, and unlinked from it first when it goes: what a node can
//! connect to is always whole. Each step is made where it is missing, so that a call that was cut off is gone on with by
//! the next. Nothing here outlives the kernel; the grants are kept elsewhere.

mod attributes;
mod port;

use std::collections::BTreeMap;
use std::io::ErrorKind as Kind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use dunnage_driver_api::{Attachment, Context, Error, Export, ExportId, InstanceId, Result, Target};

use crate::names;
use crate::wanted::{ADDRESS, PORT};
use attributes::{folder, list, read, settle, unlink, write};
use port::Port;

/// Where the kernel shows its target.
pub(crate) const CONFIGFS: &str = "/sys/kernel/config/nvmet";
/// Where the kernel shows its modules.
pub(crate) const MODULES: &str = "/sys/module";
/// Those of the target: one that is built in is shown only if it has parameters, as the second has.
const OF_TARGET: [&str; 2] = ["nvmet", "nvmet_tcp"];
const NAMESPACE: &str = "namespaces/1";

/// The kernel's target.
pub(crate) struct Nvmet {
    root: PathBuf,
    modules: PathBuf,
    port: Port,
    /// What is to be linked to the port at once; nothing any more once that was done.
    kept_back: Mutex<Option<Vec<String>>>,
}

impl Nvmet {
    /// The target below `root`, which is to listen at `address`, of a kernel that has these `modules`.
    pub(crate) fn new(root: &Path, modules: &Path, address: SocketAddr) -> Self {
        let port = Port::new(root, address);
        let kept_back = Mutex::new(Some(Vec::new()));
        Self { root: root.to_owned(), modules: modules.to_owned(), port, kept_back }
    }

    fn subsystem(&self, nqn: &str) -> PathBuf {
        self.root.join("subsystems").join(nqn)
    }

    fn host(&self, nqn: &str) -> PathBuf {
        self.root.join("hosts").join(nqn)
    }

    /// Whether the kernel has a target, so that something may be exported. One whose folder is out of sight exports what it
    /// did before.
    ///
    /// # Errors
    /// FailedPrecondition where the folder is out of sight.
    fn serves(&self) -> Result<bool> {
        for module in OF_TARGET {
            if is_there(&self.modules.join(module))? {
                return self.present().map(|()| true);
            }
        }
        is_there(&self.root)
    }

    fn present(&self) -> Result<()> {
        if is_there(&self.root)? {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the kernel shows no NVMe target at {}: run `modprobe nvmet-tcp` on the node at each start, mount configfs \
             (`mount -t configfs none /sys/kernel/config`), and give the container that folder",
            self.root.display()
        )))
    }

    /// The namespace, with the device that is to be in it.
    fn settle_namespace(&self, subsystem: &Path, id: &ExportId, device: &Path) -> Result<()> {
        let namespace = subsystem.join(NAMESPACE);
        folder(&namespace)?;
        let uuid = names::namespace(id);
        let device = device.to_str().ok_or_else(|| Error::internal("the path of the device is not UTF-8"))?;
        let wanted = [("device_uuid", uuid.to_string()), ("device_path", device.to_owned())];
        let enable = namespace.join("enable");
        if read(&enable)?.as_deref() == Some("1") {
            for (name, value) in &wanted {
                let found = read(&namespace.join(name))?.unwrap_or_default();
                if found != *value {
                    // A node uses it: what it wrote to the one device must not go on to the other.
                    return Err(Error::precondition(format!(
                        "what is asked for is exported already, from {found} where {value} is wanted ({name}): unpublish the \
                         volume and publish it again"
                    )));
                }
            }
            return Ok(());
        }
        for (name, value) in &wanted {
            write(&namespace.join(name), value)?;
        }
        write(&namespace.join("device_nguid"), &uuid.to_string())?;
        write(&enable, "1")
    }

    /// That this host may connect, and no other; one that already has is let go.
    fn settle_host(&self, subsystem: &Path, nqn: &str, host: &str) -> Result<()> {
        let allowed = subsystem.join("allowed_hosts");
        folder(&allowed)?;
        let mut others = list(&allowed)?;
        others.retain(|other| other != host);
        let any = subsystem.join("attr_allow_any_host");
        if !others.is_empty() || read(&any)?.as_deref() == Some("1") {
            // The kernel asks whether a host may connect, and never whether it may still be.
            Port::unlink_everywhere(&self.root, nqn)?;
        }
        settle(&any, "0")?;
        for other in others {
            unlink(&allowed.join(other))?;
        }
        if allowed.join(host).is_symlink() {
            return Ok(());
        }
        let linked = || {
            folder(&self.host(host))?;
            std::os::unix::fs::symlink(self.host(host), allowed.join(host))
                .map_err(|error| Error::io("cannot let the host connect", error).with("host", host))
        };
        // Whoever withdrew the last other export of this host may have removed it just now.
        linked().or_else(|_| linked())
    }

    fn link(&self, nqn: &str) -> Result<()> {
        self.port.link(&self.subsystem(nqn), nqn)
    }
}

impl Target for Nvmet {
    type Grant = ();

    fn grant(&self, _: &Context, _: &Attachment) -> Result<()> {
        Ok(())
    }

    fn export(&self, _: &Context, export: &Export<'_, ()>) -> Result<()> {
        self.present()?;
        let (nqn, host) = (names::subsystem(&export.id), names::host(&export.attachment.node));
        let subsystem = self.subsystem(&nqn);
        folder(&subsystem)?;
        settle(&subsystem.join("attr_serial"), &names::serial(&export.id))?;
        settle(&subsystem.join("attr_model"), "Dunnage")?;
        self.settle_host(&subsystem, &nqn, &host)?;
        self.settle_namespace(&subsystem, &export.id, export.path)?;
        if let Some(kept_back) = self.kept_back.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            kept_back.push(nqn);
            return Ok(());
        }
        self.link(&nqn)
    }

    fn withdraw(&self, _: &Context, id: &ExportId) -> Result<()> {
        let nqn = names::subsystem(id);
        let subsystem = self.subsystem(&nqn);
        if !self.serves()? || !is_there(&subsystem)? {
            return Ok(());
        }
        // The kernel ends all connections with this, and with the next step waits for what is still being written.
        Port::unlink_everywhere(&self.root, &nqn)?;
        for namespace in list(&subsystem.join("namespaces"))? {
            let namespace = subsystem.join("namespaces").join(namespace);
            write(&namespace.join("enable"), "0")?;
            remove(&namespace)?;
        }
        let hosts = list(&subsystem.join("allowed_hosts"))?;
        for host in &hosts {
            unlink(&subsystem.join("allowed_hosts").join(host))?;
        }
        remove(&subsystem)?;
        for host in &hosts {
            // It stays while it may connect to another one.
            let _ = fs::remove_dir(self.host(host));
        }
        Ok(())
    }

    fn grown(&self, _: &Context, id: &ExportId) -> Result<()> {
        write(&self.subsystem(&names::subsystem(id)).join(NAMESPACE).join("revalidate_size"), "1")
    }

    fn restored(&self, _: &Context) -> Result<()> {
        let kept_back = self.kept_back.lock().unwrap_or_else(PoisonError::into_inner).take();
        for nqn in kept_back.into_iter().flatten() {
            if let Err(error) = self.link(&nqn) {
                tracing::error!(nqn, error = error.report(), "a volume is not exported; it is tried again");
            }
        }
        Ok(())
    }

    fn exported(&self, instance: &InstanceId) -> Result<Vec<ExportId>> {
        if !self.serves()? {
            return Ok(Vec::new());
        }
        let subsystems = list(&self.root.join("subsystems"))?;
        let own = |nqn: &String| names::export(nqn).filter(|id| id.volume.instance == *instance);
        Ok(subsystems.iter().filter_map(own).collect())
    }

    fn stands(&self, id: &ExportId) -> Result<bool> {
        let nqn = names::subsystem(id);
        let subsystem = self.subsystem(&nqn);
        let says = |name: &str, value: &str| Ok(read(&subsystem.join(name))?.as_deref() == Some(value));
        let is_enabled = says(&format!("{NAMESPACE}/enable"), "1")?;
        let is_of_one = says("attr_allow_any_host", "0")? && list(&subsystem.join("allowed_hosts"))?.len() == 1;
        Ok(is_enabled && is_of_one && self.port.has(&nqn)?)
    }

    fn context(&self, _: &ExportId, (): &()) -> BTreeMap<String, String> {
        let address = self.port.address();
        BTreeMap::from([(ADDRESS.to_owned(), address.ip().to_string()), (PORT.to_owned(), address.port().to_string())])
    }
}

/// Whether there is something; nothing else than that it is missing means that it is not.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(cannot("look at", path)(error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != Kind::NotFound => Err(cannot("remove", path)(error)),
        _ => Ok(()),
    }
}

fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |error| Error::io(format!("cannot {what} {}", path.display()), error)
}

#[cfg(test)]
mod tests;
