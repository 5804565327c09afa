//! The drivers of this package, each behind a feature.

use dunnage_driver_api::DriverEntry;

/// The drivers that this package was built with. A vendor's binary may add its own to them.
pub fn drivers() -> Vec<DriverEntry> {
    vec![
        #[cfg(feature = "btrfs")]
        DriverEntry::of::<dunnage_driver_btrfs::Btrfs>(),
        #[cfg(feature = "dir")]
        DriverEntry::of::<dunnage_driver_dir::Dir>(),
        #[cfg(feature = "disk")]
        DriverEntry::of::<dunnage_driver_disk::Disk>(),
        #[cfg(feature = "image")]
        DriverEntry::of::<dunnage_driver_image::Image>(),
        #[cfg(feature = "iscsi")]
        DriverEntry::carrying::<dunnage_driver_iscsi::Iscsi>(),
        #[cfg(feature = "lvm")]
        DriverEntry::of::<dunnage_driver_lvm::Lvm>(),
        #[cfg(feature = "nfs")]
        DriverEntry::of::<dunnage_driver_nfs::Nfs>(),
        #[cfg(feature = "nvme-tcp")]
        DriverEntry::carrying::<dunnage_driver_nvme_tcp::NvmeTcp>(),
    ]
}
