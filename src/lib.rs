//! One program that turns any storage into CSI volumes.
//!
//! The way of a request is `service` -> `wire` -> `operations` -> a backend's driver or the `mount` engine -> `wire` ->
//! answer; each step is one place. ARCHITECTURE.md tells the invariants.

pub use cli::{Program, main};
pub use drivers::drivers;

pub mod bench;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod conformance;
pub mod demo;
mod drivers;
pub mod host;
pub mod mount;
pub mod operations;
pub mod registry;
pub mod server;
pub mod service;
pub mod status;
pub mod telemetry;
pub mod wire;
