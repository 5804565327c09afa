//! Volumes of a store on one node, used on another by NVMe over TCP.

// The lints know a test by its attribute, and not what only tests call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod in_guest;
