//! How large a device is made, and for which file system: the same for every driver whose volumes are devices.

use crate::capability::{Access, FsType, VolumeCapability};
use crate::capacity::{Bytes, CapacityRange};
use crate::error::{Error, ErrorKind, Result};
use crate::volume::CreateVolume;

const DEFAULT: Bytes = Bytes::new(1 << 30);

impl FsType {
    /// The least device on which it can be made and has its journal.
    pub const fn least_device(self) -> Bytes {
        match self {
            Self::Ext4 => Bytes::new(16 << 20),
            Self::Xfs => Bytes::new(300 << 20),
            Self::Btrfs => Bytes::new(128 << 20),
        }
    }
}

impl CreateVolume {
    /// The file system the volume is meant for: the first that a capability names, else `default`.
    pub fn fs_type(&self, default: FsType) -> FsType {
        fs_type(&self.capabilities, default)
    }

    /// The size of the device: a multiple of `unit` in the range, and large enough for every file system it may get, where
    /// `default` is that of a capability which names none. 1 GiB where the range leaves it open.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) where the range allows no such size.
    pub fn device_size(&self, default: FsType, unit: Bytes) -> Result<Bytes> {
        choose(self.capacity, &self.capabilities, default, unit)
    }

    /// That a copy of a device of this file system can be used as the request says.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) where a capability names another one.
    pub fn takes_copy_of(&self, kept: FsType) -> Result<()> {
        match mounts(&self.capabilities).flatten().find(|fs_type| *fs_type != kept) {
            None => Ok(()),
            Some(named) => Err(Error::invalid(format!(
                "the source is of file system {kept}, and {named} is asked for: a copy has that of its source, name it \
                 or none"
            ))),
        }
    }
}

fn fs_type(capabilities: &[VolumeCapability], default: FsType) -> FsType {
    mounts(capabilities).flatten().next().unwrap_or(default)
}

fn choose(range: CapacityRange, capabilities: &[VolumeCapability], default: FsType, unit: Bytes) -> Result<Bytes> {
    let fs_type = mounts(capabilities).map(|fs_type| fs_type.unwrap_or(default)).max_by_key(|it| it.least_device());
    let Some((fs_type, least)) = fs_type.map(|fs_type| (fs_type, fs_type.least_device().round_up(unit.get()))) else {
        return range.choose(DEFAULT, unit.get());
    };
    if range.limit().is_some_and(|limit| limit < least) {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{fs_type} needs a volume of at least {least} ({} bytes): asked for {range}", least.get()),
        ));
    }
    Ok(range.choose(DEFAULT, unit.get())?.max(least))
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
    use crate::capability::{AccessMode, MountAccess};

    use super::*;

    fn mount(fs_type: Option<FsType>) -> VolumeCapability {
        let access = Access::Mount(MountAccess { fs_type, ..Default::default() });
        VolumeCapability { access, mode: AccessMode::SingleNodeWriter }
    }

    fn block() -> VolumeCapability {
        VolumeCapability { access: Access::Block, mode: AccessMode::SingleNodeWriter }
    }

    fn size(required: i64, limit: i64, capabilities: &[VolumeCapability]) -> Result<u64> {
        let range = CapacityRange::new(required, limit).unwrap();
        choose(range, capabilities, FsType::Ext4, Bytes::new(4096)).map(Bytes::get)
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
