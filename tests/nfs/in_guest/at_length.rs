//! What takes long in a guest: `cargo xtask vm at_length` runs it.

use super::*;

mod copies;
mod cut;
mod gone;
mod nodes;
mod stale;
