//! The lives that are shown, one file each.

mod copy;
mod disk;
mod file_system;
mod folder;
mod parts;
mod refusals;

pub(crate) use copy::{copies, copy};
pub(crate) use disk::disk;
pub(crate) use file_system::file_system;
pub(crate) use folder::folder;
pub(crate) use parts::{MIB, bytes};
pub(crate) use refusals::refusals;
