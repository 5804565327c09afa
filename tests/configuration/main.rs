//! The configuration file and the commands that need no running host.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commands;
mod config;
mod deploy;
mod documents;
mod stand_ins;
mod wrong;
