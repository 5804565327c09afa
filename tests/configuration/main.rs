//! The configuration file and the commands that need no running host.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(all(feature = "dir", feature = "image", feature = "lvm", feature = "nvme-tcp"))]
mod carried;
mod commands;
mod config;
mod deploy;
mod documents;
mod stand_ins;
mod wrong;
