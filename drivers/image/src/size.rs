//! How large an image is made.

use dunnage_driver_api::{Access, Bytes, CapacityRange, Error, ErrorKind, FsType, Result, VolumeCapability};

/// What every size is a multiple of: the greatest logical block.
pub(crate) const UNIT: Bytes = Bytes::new(4096);

const DEFAULT: Bytes = Bytes::new(1 << 30);

/// The least device on which this file system can be made and has its journal.
pub(crate) const fn least(fs_type: FsType) -> Bytes {
    match fs_type {
        FsType::Ext4 => Bytes::new(16 << 20),
        FsType::Xfs => Bytes::new(300 << 20),
        FsType::Btrfs => Bytes::new(128 << 20),
    }
}

/// The file system a volume is meant for: the first that a capability names, else the backend's.
pub(crate) fn fs_type(capabilities: &[VolumeCapability], default: FsType) -> FsType {
    mounts(capabilities).flatten().next().unwrap_or(default)
}

/// The size of a new volume: in the range, and large enough for every file system it may get.
///
/// # Errors
/// `OutOfRange` where the range allows no such size.
pub(crate) fn choose(range: CapacityRange, capabilities: &[VolumeCapability], default: FsType) -> Result<Bytes> {
    let fs_type = mounts(capabilities).map(|fs_type| fs_type.unwrap_or(default)).max_by_key(|fs_type| least(*fs_type));
    let Some((fs_type, least)) = fs_type.map(|fs_type| (fs_type, least(fs_type))) else {
        return range.choose(DEFAULT, UNIT.get());
    };
    if range.limit().is_some_and(|limit| limit < least) {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{fs_type} needs a volume of at least {least} ({} bytes): asked for {range}", least.get()),
        ));
    }
    Ok(range.choose(DEFAULT, UNIT.get())?.max(least))
}

/// The file systems that the capabilities ask for, `None` for one that leaves the choice.
fn mounts(capabilities: &[VolumeCapability]) -> impl Iterator<Item = Option<FsType>> {
    capabilities.iter().filter_map(|capability| match &capability.access {
        Access::Mount(mount) => Some(mount.fs_type),
        Access::Block => None,
    })
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::{AccessMode, MountAccess};

    use super::*;

    fn mount(fs_type: Option<FsType>) -> VolumeCapability {
        let access = Access::Mount(MountAccess { fs_type, ..Default::default() });
        VolumeCapability { access, mode: AccessMode::SingleNodeWriter }
    }

    fn block() -> VolumeCapability {
        VolumeCapability { access: Access::Block, mode: AccessMode::SingleNodeWriter }
    }

    fn size(required: i64, limit: i64, capabilities: &[VolumeCapability]) -> Result<u64> {
        choose(CapacityRange::new(required, limit).unwrap(), capabilities, FsType::Ext4).map(Bytes::get)
    }

    #[test]
    fn a_size_below_the_file_systems_least_is_raised_to_it() {
        assert_eq!(size(1, 0, &[mount(Some(FsType::Xfs))]).unwrap(), 300 << 20);
        assert_eq!(size(1, 0, &[mount(None), mount(Some(FsType::Btrfs))]).unwrap(), 128 << 20);
        assert_eq!(size(0, 0, &[mount(None)]).unwrap(), 1 << 30);
        assert_eq!(size(5000, 0, &[block()]).unwrap(), 8192);
    }

    #[test]
    fn a_limit_below_the_file_systems_least_is_out_of_range() {
        let error = size(0, 1 << 20, &[mount(Some(FsType::Xfs))]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
        assert!(error.to_string().contains("xfs needs a volume of at least 300 MiB"), "{error}");
        assert_eq!(size(1, 4095, &[block()]).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn the_first_file_system_that_is_named_is_meant() {
        assert_eq!(fs_type(&[block(), mount(None), mount(Some(FsType::Xfs))], FsType::Ext4), FsType::Xfs);
        assert_eq!(fs_type(&[block()], FsType::Btrfs), FsType::Btrfs);
    }
}
