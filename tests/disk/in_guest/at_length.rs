//! What takes long in a guest: `cargo xtask vm at_length` runs it.

use super::*;

mod faults;
mod kills;
