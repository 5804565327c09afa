//! What tests of drivers and of the host share: faults that can be had on purpose.

mod fuse_store;
mod need;

pub use fuse_store::{BadSectors, FuseStore};
pub use need::needs_root;
