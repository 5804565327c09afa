//! The configuration file and the commands that need no running host.

mod config;
mod stand_ins;
mod wrong;
