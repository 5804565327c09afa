//! What tests of drivers and of the host share: faults that can be had on purpose.

mod dead_fuse;
mod need;

pub use dead_fuse::DeadFuse;
pub use need::needs_root;
