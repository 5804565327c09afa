//! The `dunnage` program.

fn main() {}
