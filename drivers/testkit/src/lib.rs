//! What tests of drivers and of the host share: faults that can be had on purpose, and with the feature `conformance`
//! the suite that every driver is held against.

#[cfg(feature = "conformance")]
mod conformance;
mod fuse_store;
mod need;

#[cfg(feature = "conformance")]
pub use conformance::conformance;
pub use fuse_store::{BadSectors, FuseStore};
pub use need::needs_root;
