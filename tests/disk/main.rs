//! The driver `disk`, on disks that the kernel has in memory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod in_guest;
