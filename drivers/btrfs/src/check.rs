//! What `check` says of a root, and the proofs that opening it asks for.

use dunnage_driver_api::root::{Folder, Root};
use dunnage_driver_api::{Error, Finding, Result};
use linux_raw_sys::btrfs::{BTRFS_FIRST_FREE_OBJECTID, BTRFS_FS_TREE_OBJECTID};
use linux_raw_sys::general::BTRFS_SUPER_MAGIC;
use rustix::io::Errno;

use crate::config::{Btrfs, Quota};
use crate::quota::{self, State};
use crate::sys;

/// Looks at everything this configuration needs, and changes nothing.
pub(crate) fn check(config: &Btrfs, driver: &str) -> Vec<Finding> {
    let mut findings = Root::check(&config.root, driver);
    // That it cannot be opened is among them already.
    let Ok(root) = Folder::at(&config.root) else { return findings };
    match is_btrfs(&root) {
        Ok(()) => findings.push(quotas(config, &root)),
        Err(error) => findings.push(Finding::error(error.report(), "name a folder on a btrfs in `root`")),
    }
    findings
}

fn quotas(config: &Btrfs, root: &Folder) -> Finding {
    let shown = config.root.display();
    if config.quota == Quota::None {
        return Finding::warning(
            format!("root {shown} has no quota: any volume can fill the disk"),
            "to enforce sizes leave `quota` out, and enable quotas on the file system",
        );
    }
    match proven(config, root) {
        Err(error) => Finding::error(error.report(), "see to the quotas of the file system, or say `quota: none`"),
        Ok(State { rescan: true, .. }) => Finding::warning(
            format!("the quotas of {shown} are being counted anew: sizes are not enforced exactly"),
            "wait for `btrfs quota rescan --wait`",
        ),
        Ok(State { inconsistent: true, .. }) => Finding::warning(
            format!("the quotas of {shown} are inconsistent: sizes are not enforced exactly"),
            format!("run `btrfs quota rescan {shown}`"),
        ),
        Ok(State { simple, .. }) => Finding::ok(format!("the file system of {shown} enforces {} quotas", kind(simple))),
    }
}

/// Proves that a root lies on a btrfs.
///
/// # Errors
/// FailedPrecondition where it does not.
pub(crate) fn is_btrfs(root: &Folder) -> Result<()> {
    let fs = rustix::fs::fstatfs(root).map_err(|error| root.failed("look at the file system of", "")(error.into()))?;
    if u64::try_from(fs.f_type).is_ok_and(|magic| magic == u64::from(BTRFS_SUPER_MAGIC)) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "root {} is not on a btrfs: mount its disk, make one with mkfs.btrfs, or use the driver `dir`",
        root.path().display()
    )))
}

/// Proves that the quotas of the configuration are enabled.
///
/// # Errors
/// FailedPrecondition where they are not, or are of the other kind.
pub(crate) fn proven(config: &Btrfs, root: &Folder) -> Result<State> {
    let shown = root.path().display();
    let Some(state) = quota::state(root)? else {
        return Err(Error::precondition(format!(
            "the quotas of the file system of {shown} are not enabled: run `btrfs quota enable --simple {shown}` (Linux \
             6.7, btrfs-progs 6.7) or `btrfs quota enable {shown}`, or say `quota: none`"
        )));
    };
    let wanted = match config.quota {
        Quota::Simple => true,
        Quota::Full => false,
        Quota::Auto | Quota::None => state.simple,
    };
    if wanted == state.simple {
        return Ok(state);
    }
    Err(Error::precondition(format!(
        "the file system of {shown} has {} quotas enabled: set `quota` to that, or disable them and enable the other",
        kind(state.simple)
    )))
}

/// Enables quotas on a file system that holds nothing and is to be one root as a whole. They change how every subvolume
/// is counted, so on any other file system that is the admin's to do.
///
/// # Errors
/// Where the kernel cannot.
pub(crate) fn enable_on_empty(config: &Btrfs, root: &Folder) -> Result<()> {
    let failed = |error: Errno| root.failed("enable the quotas of", "")(error.into());
    let is_whole = || -> Result<bool> {
        let in_top = sys::subvolume_id(root).map_err(failed)? == u64::from(BTRFS_FS_TREE_OBJECTID);
        let inode = rustix::fs::fstat(root).map_err(failed)?.st_ino;
        let is_top = in_top && inode == u64::from(BTRFS_FIRST_FREE_OBJECTID);
        Ok(is_top && root.is_empty().map_err(root.failed("list", ""))?)
    };
    if config.quota == Quota::None || quota::state(root)?.is_some() || !is_whole()? {
        return Ok(());
    }
    match sys::enable_quotas(root, config.quota != Quota::Full) {
        // A kernel before simple quotas.
        Err(Errno::INVAL) if config.quota == Quota::Auto => sys::enable_quotas(root, false).map_err(failed),
        done => done.map_err(failed),
    }
}

fn kind(simple: bool) -> &'static str {
    if simple { "simple" } else { "full" }
}
