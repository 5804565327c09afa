//! Block devices over iSCSI: the kernel's target, and open-iscsi on the nodes.
//!
//! On the node of the store each volume that is attached is a target of the kernel's LIO, through configfs: no daemon, no
//! program. On every node open-iscsi logs in to it, and sysfs tells which device it is. Without a store the backend takes
//! logical units that exist already, of whatever target.
//!
//! Each attachment is a target of its own, with one initiator that may log in: `<prefix>:<volume>.<word>`. The names of
//! initiators and targets, and the serial numbers of units, all follow from what the orchestrator passes, so that no node
//! asks another.

mod chap;
mod check;
mod config;
mod driver;
mod initiator;
mod lio;
mod names;
mod node;
mod records;
mod sessions;
mod wanted;

pub use config::Iscsi;
