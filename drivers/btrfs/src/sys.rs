//! The ioctls of btrfs: the one file of this driver that the compiler cannot check.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::os::fd::{AsFd, AsRawFd};

use linux_raw_sys::btrfs::{
    BTRFS_FIRST_FREE_OBJECTID, BTRFS_QGROUP_LIMIT_MAX_RFER, BTRFS_QUOTA_CTL_ENABLE,
    BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA, BTRFS_SUBVOL_RDONLY, BTRFS_SUBVOL_SPEC_BY_ID, btrfs_ioctl_ino_lookup_args,
    btrfs_ioctl_qgroup_create_args, btrfs_ioctl_qgroup_limit_args, btrfs_ioctl_quota_ctl_args, btrfs_ioctl_search_key,
    btrfs_ioctl_vol_args_v2, btrfs_ioctl_vol_args_v2__bindgen_ty_1, btrfs_ioctl_vol_args_v2__bindgen_ty_2,
    btrfs_qgroup_limit,
};
use linux_raw_sys::ioctl::{
    BTRFS_IOC_INO_LOOKUP, BTRFS_IOC_QGROUP_CREATE, BTRFS_IOC_QGROUP_LIMIT, BTRFS_IOC_QUOTA_CTL,
    BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SNAP_DESTROY_V2, BTRFS_IOC_SUBVOL_CREATE_V2, BTRFS_IOC_TREE_SEARCH,
};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Setter, Updater, ioctl};

/// How much of a tree one call of the kernel gives.
const SEARCH_BUFFER: usize = 3992;

/// Makes an empty subvolume; durable when this returns.
pub(crate) fn create_subvolume(parent: impl AsFd, name: &str) -> Result<()> {
    let arguments = named(name, 0, 0)?;
    // SAFETY: BTRFS_IOC_SUBVOL_CREATE_V2 reads one btrfs_ioctl_vol_args_v2, whose flags promise no pointer in it.
    unsafe { ioctl(parent, Setter::<BTRFS_IOC_SUBVOL_CREATE_V2, _>::new(arguments)) }
}

/// Makes a subvolume that has what `source` has now; durable when this returns.
pub(crate) fn snapshot(parent: impl AsFd, name: &str, source: impl AsFd, read_only: bool) -> Result<()> {
    let flags = if read_only { BTRFS_SUBVOL_RDONLY } else { 0 };
    let arguments = named(name, source.as_fd().as_raw_fd().into(), flags)?;
    // SAFETY: BTRFS_IOC_SNAP_CREATE_V2 reads one btrfs_ioctl_vol_args_v2, whose flags promise no pointer in it, and
    // whose descriptor `source` keeps open.
    unsafe { ioctl(parent, Setter::<BTRFS_IOC_SNAP_CREATE_V2, _>::new(arguments)) }
}

/// Removes a subvolume, whatever is in it but other subvolumes; not yet durable. The kernel frees its space later.
pub(crate) fn destroy(parent: impl AsFd, name: &str) -> Result<()> {
    let arguments = named(name, 0, 0)?;
    // SAFETY: BTRFS_IOC_SNAP_DESTROY_V2 reads one btrfs_ioctl_vol_args_v2.
    unsafe { ioctl(parent, Setter::<BTRFS_IOC_SNAP_DESTROY_V2, _>::new(arguments)) }
}

/// The same for a subvolume of this number, anywhere below the mount of `fs`.
pub(crate) fn destroy_by_id(fs: impl AsFd, id: u64) -> Result<()> {
    let mut arguments = named("", 0, BTRFS_SUBVOL_SPEC_BY_ID)?;
    arguments.__bindgen_anon_2 = btrfs_ioctl_vol_args_v2__bindgen_ty_2 { subvolid: id };
    // SAFETY: BTRFS_IOC_SNAP_DESTROY_V2 reads one btrfs_ioctl_vol_args_v2.
    unsafe { ioctl(fs, Setter::<BTRFS_IOC_SNAP_DESTROY_V2, _>::new(arguments)) }
}

/// The number of the subvolume that the file lies in.
pub(crate) fn subvolume_id(file: impl AsFd) -> Result<u64> {
    let objectid = BTRFS_FIRST_FREE_OBJECTID.into();
    let mut lookup = btrfs_ioctl_ino_lookup_args { treeid: 0, objectid, name: [0; 4080] };
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes one btrfs_ioctl_ino_lookup_args.
    unsafe { ioctl(file, Updater::<BTRFS_IOC_INO_LOOKUP, _>::new(&mut lookup)) }?;
    Ok(lookup.treeid)
}

/// Enables quotas, simple ones or full ones.
pub(crate) fn enable_quotas(fs: impl AsFd, simple: bool) -> Result<()> {
    let cmd = if simple { BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA } else { BTRFS_QUOTA_CTL_ENABLE };
    let mut arguments = btrfs_ioctl_quota_ctl_args { cmd: cmd.into(), status: 0 };
    // SAFETY: BTRFS_IOC_QUOTA_CTL reads and writes one btrfs_ioctl_quota_ctl_args.
    unsafe { ioctl(fs, Updater::<BTRFS_IOC_QUOTA_CTL, _>::new(&mut arguments)) }
}

/// Lets the group of quotas refer to at most this many bytes, or to any number.
pub(crate) fn set_limit(fs: impl AsFd, group: u64, limit: Option<u64>) -> Result<()> {
    // The greatest number is how a limit is taken away.
    let (flags, max_rfer) = (BTRFS_QGROUP_LIMIT_MAX_RFER.into(), limit.unwrap_or(u64::MAX));
    let lim = btrfs_qgroup_limit { flags, max_rfer, max_excl: 0, rsv_rfer: 0, rsv_excl: 0 };
    let arguments = btrfs_ioctl_qgroup_limit_args { qgroupid: group, lim };
    // SAFETY: BTRFS_IOC_QGROUP_LIMIT reads one btrfs_ioctl_qgroup_limit_args, whatever its number says of a write.
    unsafe { ioctl(fs, Setter::<BTRFS_IOC_QGROUP_LIMIT, _>::new(arguments)) }
}

/// Forgets a group of quotas; `EBUSY` where something is counted for it still.
pub(crate) fn remove_group(fs: impl AsFd, group: u64) -> Result<()> {
    let arguments = btrfs_ioctl_qgroup_create_args { create: 0, qgroupid: group };
    // SAFETY: BTRFS_IOC_QGROUP_CREATE reads one btrfs_ioctl_qgroup_create_args.
    unsafe { ioctl(fs, Setter::<BTRFS_IOC_QGROUP_CREATE, _>::new(arguments)) }
}

/// An item of a tree of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The last part of its key.
    pub(crate) offset: u64,
    data: Vec<u8>,
}

impl Item {
    /// The number at a place of its structure; 0 where that is shorter, as one of an older kernel may be.
    pub(crate) fn number(&self, at: usize) -> u64 {
        self.data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

/// All items of one object and one kind in a tree; `ENOENT` where there is no such tree.
pub(crate) fn search(fs: impl AsFd, tree: u32, object: u64, kind: u32) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut from = 0;
    loop {
        let found = search_from(&fs, tree, object, kind, from)?;
        let last = found.last().map(|item| item.offset);
        items.extend(found);
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) => from = next,
            None => return Ok(items),
        }
    }
}

/// The item of this key, if there is one; `ENOENT` where there is no such tree.
pub(crate) fn item(fs: impl AsFd, tree: u32, object: u64, kind: u32, offset: u64) -> Result<Option<Item>> {
    let found = search_from(fs, tree, object, kind, offset)?;
    Ok(found.into_iter().next().filter(|item| item.offset == offset))
}

/// The first few items whose offset is not below `from`; none where there are no more.
fn search_from(fs: impl AsFd, tree: u32, object: u64, kind: u32, from: u64) -> Result<Vec<Item>> {
    #[repr(C)]
    struct Search {
        key: btrfs_ioctl_search_key,
        buffer: [u8; SEARCH_BUFFER],
    }
    let key = btrfs_ioctl_search_key {
        tree_id: tree.into(),
        min_objectid: object,
        max_objectid: object,
        min_offset: from,
        max_offset: u64::MAX,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: kind,
        max_type: kind,
        nr_items: u32::MAX,
        unused: 0,
        unused1: 0,
        unused2: 0,
        unused3: 0,
        unused4: 0,
    };
    let mut search = Search { key, buffer: [0; SEARCH_BUFFER] };
    // SAFETY: BTRFS_IOC_TREE_SEARCH reads and writes one btrfs_ioctl_search_args, which `Search` is byte for byte.
    unsafe { ioctl(fs, Updater::<BTRFS_IOC_TREE_SEARCH, _>::new(&mut search)) }?;
    let (mut items, mut rest) = (Vec::new(), &search.buffer[..]);
    for _ in 0..search.key.nr_items {
        // A btrfs_ioctl_search_header: three numbers of 64 bits and two of 32, the last the length of what follows.
        let (header, data) = rest.split_at_checked(32).ok_or(Errno::OVERFLOW)?;
        let number = |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        let length = header.get(28..32).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let (offset, length) = number(16).zip(length).ok_or(Errno::OVERFLOW)?;
        let (data, after) = data.split_at_checked(length as usize).ok_or(Errno::OVERFLOW)?;
        items.push(Item { offset, data: data.to_vec() });
        rest = after;
    }
    Ok(items)
}

fn named(name: &str, fd: i64, flags: u32) -> Result<btrfs_ioctl_vol_args_v2> {
    let mut field = [0; 4040];
    // One byte stays: the kernel wants the end marked.
    if name.len() >= field.len() || name.contains(['/', '\0']) {
        return Err(Errno::INVAL);
    }
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    Ok(btrfs_ioctl_vol_args_v2 {
        fd,
        transid: 0,
        flags: flags.into(),
        __bindgen_anon_1: btrfs_ioctl_vol_args_v2__bindgen_ty_1 { unused: [0; 4] },
        __bindgen_anon_2: btrfs_ioctl_vol_args_v2__bindgen_ty_2 { name: field },
    })
}
