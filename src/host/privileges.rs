//! What a privileged process does not need, given up before it serves anybody.

use dunnage_driver_api::{Error, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// What storage needs: to mount and to use loop devices (SYS_ADMIN), to read and own any file beneath a root (DAC_*,
/// FOWNER, CHOWN, FSETID), to copy files with the capabilities that they give, and device files (SETFCAP, MKNOD), to grow
/// ext4 (SYS_RESOURCE), for the programs that make and check file systems, raw access to devices (SYS_RAWIO), and, for
/// those of LVM, which make the nodes of their devices themselves, MKNOD again.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_RAWIO)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::MKNOD);

/// Whether this thread may mount.
pub fn may_mount() -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Gives up every capability that storage does not need, and the way to get one back, for this thread and all that it
/// starts. Called before there is another.
///
/// # Errors
/// Where the kernel refuses: the process is not to run with more than it says.
pub fn drop_privileges() -> Result<()> {
    let refused =
        |what: &'static str| move |error: rustix::io::Errno| Error::io(format!("cannot give up {what}"), error);
    set_no_new_privs(true).map_err(refused("new privileges"))?;
    let own = capabilities(None).map_err(refused("capabilities"))?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(KEPT).iter() {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know cannot be had.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(refused("a capability of the bounding set")(error)),
            }
        }
    }
    let kept = CapabilitySets {
        effective: own.effective.intersection(KEPT),
        permitted: own.permitted.intersection(KEPT),
        inheritable: own.inheritable.intersection(KEPT),
    };
    set_capabilities(None, kept).map_err(refused("capabilities"))
}
