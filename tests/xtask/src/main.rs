//! Installs what the tests need and runs them.

fn main() {}
