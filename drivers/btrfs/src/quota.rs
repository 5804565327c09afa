//! Sizes by groups of quotas (qgroups).
//!
//! Each subvolume has a group of its own, with the number of the subvolume, and the limit of that group is the volume's
//! size. The kernel counts for it, by the kind of quotas that is enabled on the file system, what the subvolume refers to
//! (full) or what was written to it and is kept by anybody still (simple).
//!
//! A limit becomes durable only with the next transaction: one that a power cut took away is set again when the volume is
//! published.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Bytes, Error, Result};
use linux_raw_sys::btrfs::{
    BTRFS_FIRST_FREE_OBJECTID, BTRFS_QGROUP_LIMIT_KEY, BTRFS_QGROUP_LIMIT_MAX_RFER, BTRFS_QUOTA_TREE_OBJECTID,
    BTRFS_ROOT_TREE_OBJECTID,
};
use rustix::io::Errno;

use crate::sys::{self, Item};

/// Keys of items that the headers of the kernel's interface do not name all.
const STATUS_KEY: u32 = 240;
const INFO_KEY: u32 = 242;
const ROOT_ITEM_KEY: u32 = 132;
/// In a status item, the place of its flags.
const STATUS_FLAGS: usize = 16;
const ON: u64 = 1 << 0;
const RESCAN: u64 = 1 << 1;
const INCONSISTENT: u64 = 1 << 2;
const SIMPLE: u64 = 1 << 3;
/// In an info item, the places of what is referred to, and of what nobody else refers to.
const REFERRED: usize = 8;
const EXCLUSIVE: usize = 24;
/// How often groups of subvolumes that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The quotas that are enabled on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Whether they are simple ones.
    pub(crate) simple: bool,
    /// Whether what is counted may be wrong.
    pub(crate) inconsistent: bool,
    /// Whether all is being counted anew.
    pub(crate) rescan: bool,
}

/// The quotas of the file system of `folder`; `None` where they are not enabled.
///
/// # Errors
/// Where they cannot be read: it takes CAP_SYS_ADMIN.
pub(crate) fn state(folder: &Folder) -> Result<Option<State>> {
    let status = match sys::item(folder, BTRFS_QUOTA_TREE_OBJECTID, 0, STATUS_KEY, 0) {
        Err(Errno::NOENT) => None,
        found => found.map_err(|error| failed(folder, error))?,
    };
    let flags = status.map_or(0, |status| status.number(STATUS_FLAGS));
    Ok((flags & ON != 0).then_some(State {
        simple: flags & SIMPLE != 0,
        inconsistent: flags & INCONSISTENT != 0,
        rescan: flags & RESCAN != 0,
    }))
}

/// The groups of quotas of a file system.
pub(crate) struct Groups {
    swept: Mutex<Option<Instant>>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { swept: Mutex::new(None) }
    }

    /// Sees to it that the subvolume takes at most `limit`.
    ///
    /// # Errors
    /// Where the limit can be neither read nor set.
    pub(crate) fn ensure(&self, subvolume: &Folder, limit: Option<Bytes>) -> Result<()> {
        let failed = |error: Errno| subvolume.failed("limit the size of", "")(error.into());
        let group = sys::subvolume_id(subvolume).map_err(failed)?;
        let item = sys::item(subvolume, BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_LIMIT_KEY, group).map_err(failed)?;
        let limit = limit.map(Bytes::get);
        if item.as_ref().and_then(limit_of) == limit {
            return Ok(());
        }
        sys::set_limit(subvolume, group, limit).map_err(failed)
    }

    /// What is counted for the subvolume towards its limit, up to the last transaction.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn counted(&self, subvolume: &Folder) -> Result<Bytes> {
        let failed = |error: Errno| subvolume.failed("read the quotas of", "")(error.into());
        let group = sys::subvolume_id(subvolume).map_err(failed)?;
        let item = sys::item(subvolume, BTRFS_QUOTA_TREE_OBJECTID, 0, INFO_KEY, group).map_err(failed)?;
        Ok(Bytes::new(item.map_or(0, |item| item.number(REFERRED))))
    }

    /// How much all subvolumes of the file system that have a limit may still take, whoever made them.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn unused(&self, fs: &Folder) -> Result<Bytes> {
        let read = |kind| sys::search(fs, BTRFS_QUOTA_TREE_OBJECTID, 0, kind).map_err(|error| failed(fs, error));
        let (limits, counted) = (read(BTRFS_QGROUP_LIMIT_KEY)?, read(INFO_KEY)?);
        let mut counted = counted.iter().peekable();
        let mut sum = 0_u128;
        // Both are in the order of their groups.
        for item in &limits {
            let Some(limit) = limit_of(item) else { continue };
            while counted.next_if(|found| found.offset < item.offset).is_some() {}
            let own = counted.peek().filter(|found| found.offset == item.offset);
            // What others refer to too, the volume may write a second time.
            sum += u128::from(limit.saturating_sub(own.map_or(0, |own| own.number(EXCLUSIVE))));
        }
        Ok(Bytes::cut(sum))
    }

    /// Forgets the groups of subvolumes that are gone, which older kernels and simple quotas leave behind, unless
    /// something is counted for them still. At most once a minute.
    pub(crate) fn sweep(&self, fs: &Folder) {
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.is_some_and(|swept| swept.elapsed() < SWEEP) {
                return;
            }
            *swept = Some(Instant::now());
        }
        if let Err(error) = forget_stale(fs) {
            tracing::warn!(root = %fs.path().display(), %error, "cannot remove the quotas of subvolumes that are gone");
        }
    }
}

fn forget_stale(fs: impl AsFd) -> rustix::io::Result<()> {
    for item in sys::search(&fs, BTRFS_QUOTA_TREE_OBJECTID, 0, INFO_KEY)? {
        let group = item.offset;
        // Groups of a higher level are an admin's.
        let is_of_subvolume = group >= BTRFS_FIRST_FREE_OBJECTID.into() && group >> 48 == 0;
        if is_of_subvolume && sys::search(&fs, BTRFS_ROOT_TREE_OBJECTID, group, ROOT_ITEM_KEY)?.is_empty() {
            // EBUSY where a snapshot keeps what the subvolume wrote; the next sweep tries again.
            let _ = sys::remove_group(&fs, group);
        }
    }
    Ok(())
}

/// The limit that a limit item sets.
fn limit_of(item: &Item) -> Option<u64> {
    (item.number(0) & u64::from(BTRFS_QGROUP_LIMIT_MAX_RFER) != 0).then(|| item.number(8))
}

fn failed(folder: &Folder, error: Errno) -> Error {
    let place = folder.path().display();
    match error {
        Errno::PERM => Error::io(format!("cannot read the quotas of {place}: CAP_SYS_ADMIN is needed"), error),
        _ => Error::io(format!("cannot read the quotas of {place}"), error),
    }
}
