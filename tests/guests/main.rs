//! Several machines with a stock kernel: what they are to each other, for the tests that need a server and its clients
//! to be different machines.

// The lints know a test by its attribute, and not what only tests call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod across_guests;
mod node;
