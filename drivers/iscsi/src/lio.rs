//! The kernel's target, through configfs: a target and a backstore for each export.
//!
//! A target is made whole before it is enabled, and disabled first when it goes: what a node can log in to is always whole.
//! Each step is made where it is missing, so that a call that was cut off is gone on with by the next. Nothing here
//! outlives the kernel; the grants are kept elsewhere.

mod attributes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dunnage_driver_api::{Attachment, Context, Error, Export, ExportId, InstanceId, Result, Target};

use crate::chap::Chap;
use crate::names;
use crate::wanted::{ADDRESS, PORT};
use attributes::{folder, is_there, link, list, read, remove, settle, unlink, write, write_secret};

/// Where the kernel shows its targets.
pub(crate) const CONFIGFS: &str = "/sys/kernel/config/target";
/// Where the kernel shows that it has one.
pub(crate) const MODULE: &str = "/sys/module/iscsi_target_mod";
/// The backstores that are block devices; the number is ours to choose.
const BACKSTORES: &str = "core/iblock_7337";
const GROUP: &str = "tpgt_1";
const UNIT: &str = "lun_0";
/// The name of a link says nothing.
const LINK: &str = "dunnage";

/// The kernel's target.
pub(crate) struct Lio {
    root: PathBuf,
    /// What the kernel shows while it has a target, also where its folder is out of sight.
    module: PathBuf,
    address: SocketAddr,
    needs_chap: bool,
    /// What is to be enabled at once; nothing any more once that was done.
    kept_back: Mutex<Option<Vec<String>>>,
}

impl Lio {
    /// The target below `root`, which is to listen at `address`.
    pub(crate) fn new(root: &Path, module: &Path, address: SocketAddr, needs_chap: bool) -> Self {
        let kept_back = Mutex::new(Some(Vec::new()));
        Self { root: root.to_owned(), module: module.to_owned(), address, needs_chap, kept_back }
    }

    /// Whether the kernel has a target, so that something may be exported. One whose folder is out of sight exports what it
    /// did before.
    ///
    /// # Errors
    /// FailedPrecondition for such a one.
    fn serves(&self) -> Result<bool> {
        if is_there(&self.module)? { self.present().map(|()| true) } else { is_there(&self.root) }
    }

    fn target(&self, iqn: &str) -> PathBuf {
        self.root.join("iscsi").join(iqn)
    }

    fn backstore(&self, id: &ExportId) -> PathBuf {
        self.root.join(BACKSTORES).join(names::serial(id))
    }

    fn present(&self) -> Result<()> {
        if self.root.join("core").is_dir() {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the kernel shows no iSCSI target at {}: run `modprobe -a iscsi_target_mod target_core_iblock` on the node at \
             each start, mount configfs (`mount -t configfs none /sys/kernel/config`), and give the container that folder",
            self.root.display()
        )))
    }

    /// The device as the kernel exports it, with a serial number that is this export's alone.
    fn settle_backstore(&self, id: &ExportId, device: &Path) -> Result<PathBuf> {
        let backstore = self.backstore(id);
        let device = device.to_str().ok_or_else(|| Error::internal("the path of the device is not UTF-8"))?;
        folder(&self.root.join(BACKSTORES))?;
        folder(&backstore)?;
        if read(&backstore.join("enable"))?.as_deref() == Some("1") {
            return match read(&backstore.join("udev_path"))? {
                Some(path) if path == device => Ok(backstore),
                other => Err(Error::precondition(format!(
                    "the kernel exports {} for this volume, and its device is {device} now: detach it and attach it again",
                    other.unwrap_or_default()
                ))),
            };
        }
        write(&backstore.join("control"), &format!("udev_path={device}"))?;
        write(&backstore.join("udev_path"), device)?;
        write(&backstore.join("wwn/vpd_unit_serial"), &names::serial(id))?;
        write(&backstore.join("enable"), "1")?;
        Ok(backstore)
    }

    /// That this initiator may log in, and no other.
    fn settle_initiator(&self, group: &Path, initiator: &str, chap: Option<&Chap>) -> Result<()> {
        settle(&group.join("attrib/generate_node_acls"), "0")?;
        settle(&group.join("attrib/authentication"), if chap.is_some() { "1" } else { "0" })?;
        let acls = group.join("acls");
        for other in list(&acls)?.iter().filter(|other| *other != initiator) {
            remove_acl(&acls.join(other))?;
        }
        let acl = acls.join(initiator);
        folder(&acl)?;
        if let Some(chap) = chap {
            write_secret(&acl.join("auth/userid"), &chap.username)?;
            write_secret(&acl.join("auth/password"), &chap.password)?;
        }
        folder(&acl.join(UNIT))?;
        link(&group.join("lun").join(UNIT), &acl.join(UNIT).join(LINK))
    }

    fn enable(&self, iqn: &str) -> Result<()> {
        settle(&self.target(iqn).join(GROUP).join("enable"), "1").map_err(|error| {
            Error::precondition(format!("the kernel's iSCSI target cannot be reached at {}", self.address))
                .caused_by(error)
        })
    }
}

impl Target for Lio {
    type Grant = Option<Chap>;

    fn grant(&self, cx: &Context, _: &Attachment) -> Result<Option<Chap>> {
        let chap = Chap::of(&cx.secrets)?;
        if self.needs_chap && chap.is_none() {
            return Err(Error::invalid(
                "the request brings no secret, and `chap: required` wants one: name it in the class by \
                 csi.storage.k8s.io/controller-publish-secret-name and node-stage-secret-name",
            ));
        }
        Ok(chap)
    }

    fn export(&self, _: &Context, export: &Export<'_, Option<Chap>>) -> Result<()> {
        self.present()?;
        let (iqn, initiator) = (names::target(&export.id), names::initiator(&export.attachment.node));
        let backstore = self.settle_backstore(&export.id, export.path)?;
        folder(&self.root.join("iscsi"))?;
        let target = self.target(&iqn);
        folder(&target)?;
        let group = target.join(GROUP);
        folder(&group)?;
        let unit = group.join("lun").join(UNIT);
        folder(&unit)?;
        link(&backstore, &unit.join(LINK))?;
        self.settle_initiator(&group, &initiator, export.grant.as_ref())?;
        folder(&group.join("np").join(self.address.to_string()))?;
        if let Some(kept_back) = self.kept_back.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            kept_back.push(iqn);
            return Ok(());
        }
        self.enable(&iqn)
    }

    fn withdraw(&self, _: &Context, id: &ExportId) -> Result<()> {
        if !self.serves()? {
            return Ok(());
        }
        let target = self.target(&names::target(id));
        let group = target.join(GROUP);
        if is_there(&group)? {
            // The kernel ends all sessions with this.
            settle(&group.join("enable"), "0")?;
            for acl in list(&group.join("acls"))? {
                remove_acl(&group.join("acls").join(acl))?;
            }
            for portal in list(&group.join("np"))? {
                remove(&group.join("np").join(portal))?;
            }
            for unit in list(&group.join("lun"))? {
                let unit = group.join("lun").join(unit);
                unlink(&unit.join(LINK))?;
                remove(&unit)?;
            }
            remove(&group)?;
        }
        remove(&target)?;
        remove(&self.backstore(id))
    }

    fn grown(&self, _: &Context, _: &ExportId) -> Result<()> {
        // The kernel's target asks the device for its size whenever it is asked for it.
        Ok(())
    }

    fn restored(&self, _: &Context) -> Result<()> {
        let kept_back = self.kept_back.lock().unwrap_or_else(PoisonError::into_inner).take();
        for iqn in kept_back.into_iter().flatten() {
            if let Err(error) = self.enable(&iqn) {
                tracing::error!(iqn, error = error.report(), "a volume is not exported; it is tried again");
            }
        }
        Ok(())
    }

    fn exported(&self, instance: &InstanceId) -> Result<Vec<ExportId>> {
        if !self.serves()? {
            return Ok(Vec::new());
        }
        let targets = list(&self.root.join("iscsi"))?;
        let own = |iqn: &String| names::export(iqn).filter(|id| id.volume.instance == *instance);
        Ok(targets.iter().filter_map(own).collect())
    }

    fn stands(&self, id: &ExportId) -> Result<bool> {
        let group = self.target(&names::target(id)).join(GROUP);
        let (portal, acls) = (group.join("np").join(self.address.to_string()), list(&group.join("acls"))?);
        let has =
            |attribute: &str, value: &str| Ok::<_, Error>(read(&group.join(attribute))?.as_deref() == Some(value));
        let lets_in_one = acls.len() == 1 && has("attrib/generate_node_acls", "0")?;
        Ok(is_there(&portal)? && lets_in_one && has("enable", "1")?)
    }

    fn context(&self, _: &ExportId, _: &Option<Chap>) -> BTreeMap<String, String> {
        let address = self.address;
        BTreeMap::from([(ADDRESS.to_owned(), address.ip().to_string()), (PORT.to_owned(), address.port().to_string())])
    }
}

fn remove_acl(acl: &Path) -> Result<()> {
    for unit in list(acl)?.into_iter().filter(|name| name.starts_with("lun_")) {
        unlink(&acl.join(&unit).join(LINK))?;
        remove(&acl.join(&unit))?;
    }
    remove(acl)
}
