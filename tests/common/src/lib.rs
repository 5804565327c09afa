//! What the whole-process tests share.
//!
//! A test names its backends in a [`Setup`], starts the program as a [`Host`] and calls it over the real sockets. All of
//! it lies in one [`Scratch`] folder. When the test ends, however it does, the process is killed, and every mount and
//! loop device beneath that folder goes.

mod calls;
mod client;
mod disk;
mod fault;
mod faulty_disk;
mod host;
mod http;
mod iscsi;
mod mounts;
mod need;
mod nfs;
mod nvme;
mod process;
mod quota;
mod requests;
mod scratch;
mod scsi_disks;
mod setup;
mod strace;
mod volume;
mod volume_group;
mod wait;

pub use calls::Client;
pub use client::connect;
pub use disk::{Frozen, mount_disk, mount_new, run};
pub use fault::{Fault, covers};
pub use faulty_disk::{Failing, FaultyDisk};
pub use host::Host;
pub use http::get;
pub use iscsi::IscsiTarget;
pub use mounts::{loop_devices_beneath, mounts_beneath};
pub use need::{NOBODY, Need, can_run};
pub use nfs::{NfsClient, NfsServer};
pub use nvme::NvmeTarget;
pub use process::run_within;
pub use quota::{Quotas, projects};
pub use requests::{GIB, MIB, MODE, block, create, expand, filesystem, mount};
pub use scratch::Scratch;
pub use scsi_disks::ScsiDisk;
pub use setup::Setup;
pub use strace::Strace;
pub use volume::Volume;
pub use volume_group::VolumeGroup;
pub use wait::wait_until;
