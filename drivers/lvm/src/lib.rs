//! Volumes that are logical volumes of an LVM volume group.
//!
//! A backend is a volume group, or a thin pool in one; which of the two its configuration says, since a thin pool has
//! snapshots and clones and a thick volume has none. All that is kept of an instance, a volume or a snapshot is kept in
//! LVM's own metadata, as tags that are written with the logical volume itself: there is no file, and so none that
//! can be lost or be out of step. What is not whole yet (a thick volume that is not wiped, a copy that has not grown) bears
//! a tag that says so, and is no volume.
//!
//! The programs of LVM are the only way in. One report answers many calls; a change is one command; the kernel's
//! device is found and let go by its own id, without LVM.

mod check;
mod config;
mod device;
mod driver;
mod group;
mod health;
mod layout;
mod marker;
mod name;
mod node;
mod report;
mod reports;
mod room;
mod snapshots;
mod store;
mod tags;
mod thick;
mod wipe;

pub use config::Lvm;
