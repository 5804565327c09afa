//! The `dunnage` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    dunnage::main(dunnage::drivers())
}
