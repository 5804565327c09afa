//! The driver `iscsi`, on a kernel that has a target and an initiator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod in_guest;
