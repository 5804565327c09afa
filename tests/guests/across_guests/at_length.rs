//! What takes long: `cargo xtask vm at_length` runs it.

mod power;
