//! `quota: project` of the driver `dir`, on the file systems that have it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod in_guest;
