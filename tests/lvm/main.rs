//! The driver `lvm`, on volume groups of a kernel that has the device mapper.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod in_guest;
