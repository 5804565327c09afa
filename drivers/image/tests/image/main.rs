//! The driver as a host uses it, on real files and loop devices.
// Clippy sees a test in what bears the attribute alone, and not in the helpers here.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod background;
mod blank;
mod changes;
mod copies;
mod cut_off;
mod faults;
mod interrupted;
mod lives;
mod loop_devices;
mod room;
mod support;
