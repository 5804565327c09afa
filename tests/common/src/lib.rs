//! What the whole-process tests share.
//!
//! A test names its backends in a [`Setup`], starts the program as a [`Host`] and calls it over the real sockets. All of
//! it lies in one [`Scratch`] folder. When the test ends, however it does, the process is killed, and every mount and
//! loop device beneath that folder goes.

mod client;
mod host;
mod mounts;
mod need;
mod process;
mod scratch;
mod setup;
mod wait;

pub use client::connect;
pub use host::Host;
pub use mounts::mounts_beneath;
pub use need::{Need, can_run};
pub use process::run_within;
pub use scratch::Scratch;
pub use setup::Setup;
pub use wait::wait_until;
